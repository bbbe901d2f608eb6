# A machine needs only Docker and make: every tool runs in the images built here.
IMAGE := ss-warp
TEST_IMAGE := ss-warp-test
MACHINE_IMAGE := ss-warp-machine
VM_TEST := -m vm -k "not proxy" tests/lab tests/vm
BASE := debian:trixie-slim
ARCH = $(shell docker version --format '{{.Server.Arch}}')
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' entrypoint/__init__.py)
BUILD := docker build --quiet --build-arg BASE=$(BASE) --build-arg VERSION=$(VERSION)
# A mirror that does not answer for a moment must not fail the build: the second try continues where the first stopped.
build = $(BUILD) --target $(1) --tag $(2) . >/dev/null || $(BUILD) --target $(1) --tag $(2) . >/dev/null
COMPOSE := $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

# Enough for network namespaces, mounts, sysctls, TUN, nft and AF_PACKET; not --privileged, which
# machines without CAP_SYS_RESOURCE refuse.
LAB := --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add NET_RAW --cap-add SYS_PTRACE \
	--security-opt seccomp=unconfined --security-opt systempaths=unconfined \
	--security-opt apparmor=unconfined --device /dev/net/tun
SOCKET := --volume /var/run/docker.sock:/var/run/docker.sock --env IMAGE=$(IMAGE) --env TEST_IMAGE=$(TEST_IMAGE)
# LAB_REPEAT=100 for long repetitions, LAB_PROBES=10000, LAB_KILLS=all: by default they fit into half an hour.
# FUZZ is how many broken answers and files of each kind are tried: 10,000 by `make test`, fewer by `make check`.
RUN := docker run --rm --init --env LAB_REPEAT --env LAB_PROBES --env LAB_KILLS --env LAB_KILLS_PART --env FUZZ
ROUNDS := 5
SECONDS := 2

.PHONY: help base image test-image check test test-unit test-lab test-machines test-engine arm64-test test-shipped machine-image vm-test demo bench bench-machine docs pictures version release lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

base:
	@.ci/base-image $(BASE)

image: base ## build the image, tagged ss-warp
	@echo "building $(IMAGE); the first time ssserver is compiled, which takes some minutes"
	@$(call build,runtime,$(IMAGE))

test-image: image ## build the test image: the same with the test tools on top
	@echo "building $(TEST_IMAGE)"
	@$(call build,test,$(TEST_IMAGE))

check: export FUZZ ?= 1000
check: test-image ## check format, spelling, lint, types and unit tests: about a minute
	@$(RUN) --network none $(TEST_IMAGE) .ci/check

# What waits most runs beside what computes most; the second lane's output comes at the end.
lane = $(MAKE) --no-print-directory --keep-going
test: test-image machine-image ## run all tests: half an hour once the images are built
	@log=$$(mktemp); $(lane) test-shipped vm-test test-machines >$$log 2>&1 & \
		$(lane) test-unit test-lab; first=$$?; wait $$!; second=$$?; \
		cat $$log; rm $$log; exit $$((first | second))

test-unit:
	@$(RUN) --network none $(LAB) $(TEST_IMAGE) .ci/check

test-lab:
	@$(RUN) $(LAB) $(TEST_IMAGE) pytest --ignore tests/lab/machines --ignore tests/lab/engine tests/lab

test-machines:
	@$(RUN) $(LAB) $(TEST_IMAGE) pytest --numprocesses 2 tests/lab/engine tests/lab/machines

test-engine: base ## the engine by itself: format, lint, tests, hostile input
	@$(call build,engine-test,$(IMAGE)-engine-test)

arm64-test: base ## compile the engine for arm64, and run its tests on an emulated processor
	@$(call build,engine-arm64,$(IMAGE)-engine-arm64)
	@$(RUN) --network none $(IMAGE)-engine-arm64

test-shipped:
	@$(RUN) --network none $(LAB) $(SOCKET) $(TEST_IMAGE) pytest tests/image

machine-image: test-image # an emulated machine: QEMU and Debian's cloud kernel, which is for amd64
	@case $(ARCH) in amd64) \
		echo "building $(MACHINE_IMAGE)"; $(call build,machine,$(MACHINE_IMAGE));; esac

vm-test: machine-image ## run the lab on an emulated kernel that has WireGuard
	@tests/vm/run $(TEST_IMAGE) $(MACHINE_IMAGE) $(VM_TEST)

demo: test-image ## run ss-warp against an emulated Cloudflare, in containers
	@COMPOSE="$(COMPOSE)" examples/demo/demo

bench: test-image ## measure; ONLY=throughput,limited,engine,small,held,start,idle ROUNDS=5 SECONDS=2
	@$(RUN) $(LAB) --env COMMIT="$$(git describe --always)$$(git diff --quiet HEAD -- . ':!docs' ':!bench/results.json' || echo -dirty)" \
		--env IMAGE_SIZE="$$(docker image inspect --format '{{.Size}}' $(IMAGE))" $(TEST_IMAGE) \
		python -m bench --only "$(ONLY)" --rounds $(ROUNDS) --seconds $(SECONDS) | tar --extract --file -

bench-machine: machine-image ## measure kernel WireGuard beside userspace, emulated: an indication
	@tests/vm/run $(TEST_IMAGE) $(MACHINE_IMAGE) tests/vm/figures.py

docs: test-image ## write what the pages show of the code, and the pictures
	@$(RUN) --network none $(TEST_IMAGE) python -m tests.unit.docs.pages | tar --extract --file -
	@$(RUN) $(LAB) $(TEST_IMAGE) python -m tests.lab.routing_page >docs/routing.md.new && mv docs/routing.md.new docs/routing.md

pictures: test-image ## draw the first run again, from a run of the demo
	@COMPOSE="$(COMPOSE)" examples/demo/demo save docs/pictures/first-run.txt
	@$(RUN) --volume "$(CURDIR)/docs:/src/docs:ro" $(TEST_IMAGE) python -m tests.unit.docs.pages | tar --extract --file -

version:
	@echo $(VERSION)

release: test-image ## write dist/: archives to load, bill of materials, licences, notes, checksums
	@rm -rf dist && mkdir dist
	@docker tag $(IMAGE) $(IMAGE):$(ARCH)
	@for arch in amd64 arm64; do ! docker image inspect $(IMAGE):$$arch >/dev/null 2>&1 || { \
		docker tag $(IMAGE):$$arch $(IMAGE) && docker save --output dist/image-$$arch.tar $(IMAGE); }; done; \
		docker tag $(IMAGE):$(ARCH) $(IMAGE)
	@$(RUN) --interactive --network none --entrypoint /opt/ss-warp/bin/python $(IMAGE) - <release/inventory.py >dist/parts.json
	@tar --create --directory dist . | $(RUN) --interactive --network none $(TEST_IMAGE) python -m release \
		| tar --extract --directory dist
	@rm dist/image-*.tar dist/parts.json && cd dist && sha256sum --check --quiet SHA256SUMS && ls -l

lock: base ## lock the newest Python packages, with hashes
	@$(call build,python,$(IMAGE)-lock)
	@$(RUN) --interactive $(IMAGE)-lock sh -c "$$(cat .ci/lock)" <pyproject.toml | tar --extract --file -

clean: ## remove what make built and what an interrupted demo left
	@COMPOSE="$(COMPOSE)" examples/demo/demo down
	@docker image rm --force $(IMAGE) $(TEST_IMAGE) $(MACHINE_IMAGE) $(IMAGE)-lock >/dev/null 2>&1 || true
