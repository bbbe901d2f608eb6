# Stages: shadowsocks, engine (compiled) · python (locked packages) · runtime (what ships) ·
# sslocal, wireguard, python-test, test · machine · engine-test, engine-arm64.
# No BuildKit-only syntax: Docker engine 20.10's legacy builder must build this file too.
ARG BASE=debian:trixie-slim

# ── ssserver, from the crate registry; changes only with its version, so it stays cached ──────────
FROM ${BASE} AS shadowsocks
RUN apt-get update \
 && apt-get install -y --no-install-recommends cargo-web gcc g++ make cmake libc6-dev ca-certificates \
 && rm -rf /var/lib/apt/lists/*
ARG SHADOWSOCKS_RUST_VERSION=1.25.0
# The crate's own profile (fat, one unit) needs 2 GB; docs/install.md has the figures of all.
# Empty: thin, but off with less than 1 GB.
ARG SSSERVER_LTO=
ARG SSSERVER_CODEGEN_UNITS=16
# Empty: as many jobs as cores, but one at a time with less than 1.5 GB.
ARG SSSERVER_JOBS=
ENV CARGO_HOME=/build/cargo CARGO_TARGET_DIR=/build/target CARGO_PROFILE_RELEASE_LTO=${SSSERVER_LTO:-thin} \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=$SSSERVER_CODEGEN_UNITS \
    SHADOWSOCKS_RUST_VERSION=$SHADOWSOCKS_RUST_VERSION \
    FEATURES=logging,hickory-dns,multi-threaded,mimalloc,aead-cipher,aead-cipher-2022,security-replay-attack-detect
# Beside the program goes what it is made of: every crate with its licence, and the texts of those licences.
RUN free=$(awk '/^MemAvailable/ {printf "%.0f", $2 / 1024}' /proc/meminfo) \
 && limit=$(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null \
      | awk '$1 + 0 > 0 {printf "%.0f", $1 / 1048576; exit}') \
 && if [ "${limit:-$free}" -lt "$free" ]; then free=$limit; fi \
 && if [ "$free" -lt 1500 ]; then few=1; fi \
 && if [ "$free" -lt 1000 ] && [ -z "$SSSERVER_LTO" ]; then export CARGO_PROFILE_RELEASE_LTO=off; fi \
 && jobs=${SSSERVER_JOBS:-${few:-$(nproc)}} \
 && echo "building ssserver with $free MB of memory, jobs: $jobs, LTO: $CARGO_PROFILE_RELEASE_LTO" \
 && cargo install shadowsocks-rust --version "$SHADOWSOCKS_RUST_VERSION" --locked --root /out --jobs "$jobs" \
      --no-default-features --bin ssserver --features "server,$FEATURES" \
 && cp -r $CARGO_HOME/registry/src/*/shadowsocks-rust-$SHADOWSOCKS_RUST_VERSION /build/source \
 && mkdir -p /out/share/ss-warp \
 && cargo tree --manifest-path /build/source/Cargo.toml --locked --edges normal --prefix none --no-dedupe \
      --no-default-features --features "server,$FEATURES" --format '{p}|{l}' \
      | sort -u >/out/share/ss-warp/ssserver.crates \
 && cd $CARGO_HOME/registry/src/* \
 && find . -maxdepth 2 -type f -iname 'licen[cs]e*' | sort | xargs tail --verbose --lines +1 \
      | gzip -9 >/out/share/ss-warp/ssserver.licences.gz \
 && rm -rf /build

# ── Our WireGuard; its dependencies have a layer of their own, so that changing it is quick ───────
FROM ${BASE} AS engine
RUN apt-get update \
 && apt-get install -y --no-install-recommends cargo-web gcc g++ make cmake libc6-dev ca-certificates \
 && rm -rf /var/lib/apt/lists/*
ENV CARGO_HOME=/build/cargo CARGO_TARGET_DIR=/build/target CARGO_INCREMENTAL=0
WORKDIR /build/engine
COPY engine/Cargo.toml engine/Cargo.lock ./
# Beside the program goes what it is made of, as above; gotatun's licence comes without its text.
# One job at a time: the C compiler and the linker each want some hundred MB, and 512 must do for all.
RUN mkdir src && echo 'fn main() {}' >src/main.rs \
 && cargo build --release --locked --jobs 1 \
 && mkdir -p /out/share/ss-warp \
 && cargo tree --locked --edges normal --prefix none --no-dedupe --format '{p}|{l}' \
      | sed 1d | sort -u >/out/share/ss-warp/ss-warp-wireguard.crates \
 && cd $CARGO_HOME/registry/src/* \
 && { find . -maxdepth 2 -type f -iname 'licen[cs]e*' | sort; echo /usr/share/common-licenses/MPL-2.0; } \
      | xargs tail --verbose --lines +1 | gzip -9 >/out/share/ss-warp/ss-warp-wireguard.licences.gz
COPY engine .
RUN touch src/main.rs \
 && cargo build --release --locked --jobs 1 \
 && install -D -t /out/bin "$CARGO_TARGET_DIR/release/ss-warp-wireguard"

# ── Python packages, locked with hashes; pip stays in this stage ──────────────────────────────────
FROM ${BASE} AS python
RUN apt-get update \
 && apt-get install -y --no-install-recommends binutils python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/pip \
 && python3 -m venv --without-pip /opt/ss-warp
COPY requirements.lock /
RUN /opt/pip/bin/pip --python /opt/ss-warp/bin/python install --no-cache-dir --no-compile --require-hashes -r /requirements.lock \
 && find /opt/ss-warp/lib -name '*.so' -exec strip --strip-unneeded {} +

# ── What ships ────────────────────────────────────────────────────────────────────────────────────
FROM ${BASE} AS runtime
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates nftables python3 tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*.log /var/log/apt \
      /usr/lib/python3.13/test /usr/lib/python3.13/pydoc_data \
 && find /usr/lib/python3* -name __pycache__ -prune -exec rm -rf {} + \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && groupadd --system --gid 58388 ssserver \
 && useradd --system --uid 58388 --gid 58388 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ssserver
COPY --from=shadowsocks /out/bin/ssserver /usr/local/bin/
COPY --from=engine /out/bin/ss-warp-wireguard /usr/local/bin/
COPY --from=shadowsocks /out/share /usr/share
COPY --from=engine /out/share /usr/share
COPY --from=python /opt/ss-warp /opt/ss-warp
COPY shadowsocks /usr/local/lib/ss-warp/shadowsocks
COPY entrypoint /usr/local/lib/ss-warp/entrypoint
# Importing once leaves bytecode of exactly what is used; the root is read-only later.
RUN PYTHONPATH=/usr/local/lib/ss-warp /opt/ss-warp/bin/python -m entrypoint warm \
 && printf '#!/bin/sh\nexec /opt/ss-warp/bin/python -m entrypoint "$@"\n' >/usr/local/bin/ss-warp \
 && chmod 0755 /usr/local/bin/ss-warp \
 && install -d -m 0700 /var/lib/ss-warp
ENV PYTHONPATH=/usr/local/lib/ss-warp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# `make image` says which; the one place that holds it is entrypoint/__init__.py.
ARG VERSION=source
ARG SOURCE=https://github.com/ss-warp/ss-warp
LABEL org.opencontainers.image.title="ss-warp" \
      org.opencontainers.image.description="Shadowsocks in, Cloudflare WARP out" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}"
VOLUME /var/lib/ss-warp
EXPOSE 8388/tcp 8388/udp
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["/opt/ss-warp/bin/python", "-S", "-m", "entrypoint", "healthcheck"]
ENTRYPOINT ["/usr/bin/tini", "-e", "143", "--", "/opt/ss-warp/bin/python", "-m", "entrypoint"]
CMD ["run"]

# ── What only tests need ──────────────────────────────────────────────────────────────────────────
# After runtime, because the legacy builder makes every stage before the one asked for.
FROM shadowsocks AS sslocal
RUN cargo install shadowsocks-rust --version "$SHADOWSOCKS_RUST_VERSION" --locked --root /out \
      --no-default-features --bin sslocal --features "local,$FEATURES" \
 && rm -rf /build

# wireguard-go with WARP's reserved bytes, over Debian's library: the other end, and what ours is compared with.
FROM ${BASE} AS wireguard
RUN apt-get update \
 && apt-get install -y --no-install-recommends golang-go golang-golang.zx2c4-wireguard-dev \
 && rm -rf /var/lib/apt/lists/*
# Without modules nothing is fetched: what Debian has installed is all there is.
ENV GO111MODULE=off GOPATH=/build:/usr/share/gocode GOFLAGS=-trimpath CGO_ENABLED=0
WORKDIR /build/src/ss-warp
COPY wireguard wireguard
COPY tests/cloudflare/wireguard tests/cloudflare/wireguard
# fuse-overlayfs under load names a file twice now and then, which go refuses: hence again.
RUN again() { "$@" || "$@"; } \
 && test -z "$(gofmt -l .)" && again go vet ./... && again go test ./... \
 && version=$(dpkg-query --show --showformat '${Version}' golang-golang.zx2c4-wireguard-dev) \
 && again go build -ldflags "-s -w -X main.version=$version" -o /out/wireguard-go ./wireguard \
 && again go build -ldflags "-s -w" -o /out/wireguard-edge ./tests/cloudflare/wireguard

FROM python AS python-test
COPY tests/requirements.lock /
RUN /opt/pip/bin/pip --python /opt/ss-warp/bin/python install --no-cache-dir --no-compile --require-hashes -r /requirements.lock

# ── The same image with the test tools on top ─────────────────────────────────────────────────────
FROM runtime AS test
RUN apt-get update \
 && apt-get install -y --no-install-recommends iproute2 iptables strace procps make git docker-cli docker-compose kubectl \
      wireguard-go wireguard-tools \
 && rm -rf /var/lib/apt/lists/*
COPY --from=sslocal /out/bin/sslocal /usr/local/bin/
COPY --from=wireguard /out/wireguard-go /out/wireguard-edge /usr/local/bin/
COPY --from=python-test /opt/ss-warp /opt/ss-warp
ENV PATH=/opt/ss-warp/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/src
WORKDIR /src
COPY . /src
ENTRYPOINT []
CMD ["pytest"]

# ── An emulated machine, whose kernel has WireGuard; its disk is made of the test image (tests/vm/run) ───
FROM ${BASE} AS machine
# What of /guest goes into the disk: the kernel's modules, and kmod, which the kernel calls to load them.
RUN apt-get update \
 && apt-get install -y --no-install-recommends e2fsprogs kmod qemu-system-x86 \
 && cd /tmp \
 && apt-get download kmod libkmod2 "$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p')" \
 && for package in *.deb; do dpkg-deb --extract "$package" /guest; done \
 && depmod --basedir /guest --moduledir /usr/lib/modules "$(ls /guest/usr/lib/modules)" \
 && rm -rf *.deb /var/lib/apt/lists/*
COPY tests/vm/machine /usr/local/bin/machine
ENTRYPOINT ["machine"]

# ── The engine by itself: format, lint, tests ─────────────────────────────────────────────────────
FROM engine AS engine-test
RUN apt-get update \
 && apt-get install -y --no-install-recommends rustfmt-web rust-web-clippy \
 && rm -rf /var/lib/apt/lists/*
RUN cargo fmt --check && cargo clippy --locked --all-targets --jobs 1 -- -D warnings && FUZZ_SECONDS=10 cargo test --locked --jobs 1

# ── The engine for arm64, compiled on whatever this is; its tests run in an emulated processor ─────
FROM ${BASE} AS engine-arm64
RUN dpkg --add-architecture arm64 \
 && apt-get update \
 && apt-get install -y --no-install-recommends cargo-web make cmake ca-certificates \
      gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross libstd-rust-web-dev:arm64 qemu-user \
 && rm -rf /var/lib/apt/lists/*
ENV CARGO_HOME=/build/cargo CARGO_TARGET_DIR=/build/target CARGO_INCREMENTAL=0 \
    CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
WORKDIR /build/engine
COPY engine .
# Optimised, since some tests are about floods, which an emulated processor must keep up with.
ENV CARGO_PROFILE_DEV_OPT_LEVEL=2
RUN cargo test --locked --no-run
CMD ["cargo", "test", "--locked", "--offline"]

FROM runtime
