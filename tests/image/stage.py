"""An internal network with the emulated Cloudflare and a client, for the image under test."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Self

import docker
from docker.models.containers import Container
from docker.models.volumes import Volume
from docker.types import IPAMConfig, IPAMPool

from tests.image.compose import TEST_IMAGE, restrictions
from tests.image.made import LABEL, gone
from tests.lab.product import eventually

STATE = "/var/lib/ss-warp"
STOP = 5.0
EMULATE = 'printf %s "$CONFIG" >/tmp/config.json && exec python -m tests.cloudflare --config /tmp/config.json'
ASK = ["python", "-m", "tests.cloudflare", "--config", "/tmp/config.json", "ask", "GET"]


class Stage:
    """Everything around the product, with one volume for its state. Leaving removes all of it.

    The emulator's published addresses lead to the first device alone, so a stage is good for one
    registration. `number` tells stages apart that are up at the same time.
    """

    def __init__(self, engine: docker.DockerClient, number: int) -> None:
        self._engine = engine
        self._stack = ExitStack()
        self._networks = (f"10.213.{188 + number}.", f"fd5c:5c1e:d388:{number}::")
        # Where the emulator is: API, edge, and the origin's door for who comes without WARP.
        self._doors = self._address(2)

    def _address(self, host: int) -> tuple[str, str]:
        return (f"{self._networks[0]}{host}", f"{self._networks[1]}{host}")

    def __enter__(self) -> Self:
        """Put it up and wait for the emulator."""
        engine, labels = self._engine, {LABEL: ""}
        pools = [IPAMPool(subnet=f"{self._networks[0]}0/24"), IPAMPool(subnet=f"{self._networks[1]}/64")]
        self._network = engine.networks.create(
            f"{LABEL}-{self._networks[0]}0",
            driver="bridge",
            internal=True,
            enable_ipv6=True,
            ipam=IPAMConfig(pool_configs=pools),
            labels=labels,
        )
        self._stack.callback(gone, self._network)
        self._shared = self._kept(engine.volumes.create(labels=labels))
        self._volume = self._kept(engine.volumes.create(labels=labels))
        tools = {"image": TEST_IMAGE, "init": True, "sysctls": {"net.ipv6.conf.all.disable_ipv6": "0"}}
        config = {"state": "/cloudflare", "uplink": "eth0", "published": self._doors}
        config["control"] = f"{self._doors[0]}:8000"
        self._cloudflare = self._put(
            self._doors,
            **tools,
            command=["sh", "-c", EMULATE],
            environment={"CONFIG": json.dumps(config)},
            cap_add=["NET_ADMIN", "SYS_ADMIN"],
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            devices=["/dev/net/tun:/dev/net/tun:rwm"],
            volumes={self._shared.name: {"bind": "/cloudflare", "mode": "rw"}},
        )
        self._client = self._put(
            self._address(4), **tools, command=["sleep", "infinity"], cap_add=["NET_ADMIN"]
        )
        eventually(lambda: b"ready" in self._cloudflare.logs(), "the emulator is ready", 20)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self._stack.close()

    def _kept(self, volume: Volume) -> Volume:
        self._stack.callback(gone, volume)
        return volume

    def _put(self, addresses: tuple[str, str], **arguments: Any) -> Container:
        """Start a container with these addresses."""
        name = self._network.name
        here = self._engine.api.create_endpoint_config(ipv4_address=addresses[0], ipv6_address=addresses[1])
        arguments["networking_config"] = {name: here}
        made = self._engine.containers.create(network=name, labels=[LABEL], detach=True, **arguments)
        self._stack.callback(gone, made)
        made.start()
        return made

    def start(self, host: int = 77) -> Container:
        """Start a product, which has this number in the network."""
        arguments = restrictions() | {
            "volumes": {
                self._volume.name: {"bind": STATE, "mode": "rw"},
                self._shared.name: {"bind": "/cloudflare", "mode": "ro"},
            }
        }
        arguments["environment"] |= {
            "WARP_API_URL": f"https://{self._doors[0]}",
            "WARP_API_CA_FILE": "/cloudflare/ca.pem",
            "HEALTH_CA_FILE": "/cloudflare/ca.pem",
            "WARP_ENDPOINTS": self._doors[0],
            "SHADOWSOCKS_PUBLIC_HOST": self._address(host)[0],
        }
        healthcheck = {"interval": 1_000_000_000}  # nanoseconds; Docker's own pace is not ours to measure
        return self._put(self._address(host), **arguments, healthcheck=healthcheck)

    def connected(self, product: Container) -> None:
        """Wait until a request came back through the tunnel and Shadowsocks listens."""

        def serving() -> bool:
            product.reload()
            assert product.status == "running", product.logs().decode()
            done = product.exec_run(["cat", "/run/ss-warp/status.json"])
            status = json.loads(done.output) if done.output and done.exit_code == 0 else {}
            return status.get("state") == "connected" and bool(status["shadowsocks"]["listening"])

        try:
            eventually(serving, "connected", 20)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{product.logs().decode()}") from None

    def started(self) -> Container:
        """Start a product and wait until it is connected."""
        product = self.start()
        self.connected(product)
        return product

    def stopped(self, product: Container) -> int:
        """Stop it as `docker stop` does, which must be quick; return its exit code."""
        began = time.monotonic()
        product.stop(timeout=10)
        seconds = time.monotonic() - began
        assert seconds <= STOP, f"{seconds:.1f} s"
        product.reload()
        return int(product.attrs["State"]["ExitCode"])

    def registrations(self) -> int:
        """Return how often the API was asked for a new device."""
        calls = json.loads(self._cloudflare.exec_run([*ASK, "/calls"]).output)
        return sum(one["method"] == "POST" and one["path"].endswith("/reg") for one in calls)

    def link(self, product: Container) -> str:
        """Return its link."""
        printed = product.exec_run(["ss-warp", "link"]).output.decode()
        [link] = [word for word in printed.split() if word.startswith("ss://")]
        return str(link)

    def ask(self, product: Container) -> str:
        """Run the demo's client; return its table."""
        told = self._client.exec_run(
            ["python", "-m", "examples.demo.client", *self._doors], environment={"LINK": self.link(product)}
        )
        return str(told.output.decode())

    def first_byte(self, link: str, start: Callable[[], Container]) -> float:
        """Return the seconds from a product's start to the first byte through it."""
        api = self._engine.api
        program = ["python", "-m", "tests.image.first_byte"]
        made = api.exec_create(self._client.id, program, environment={"LINK": link})
        printed = api.exec_start(made["Id"], stream=True)
        first = next(printed)
        assert first.startswith(b"waiting"), first
        product = start()
        text = b"".join(printed).decode().strip()
        product.reload()
        assert text.startswith("at "), f"{text}\n{product.logs().decode()}"
        return float(text.removeprefix("at ")) - moment(product.attrs["State"]["StartedAt"])


def moment(text: str) -> float:
    """Return the engine's time as seconds since 1970; it tells nanoseconds, which datetime cannot read."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
