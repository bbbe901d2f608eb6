"""A network as Docker makes it for compose, whose way out is the emulated Cloudflare and a small internet.

     containers ──┬── bridge ── the host (published ports come in here)
                  │     ╷ observer: every frame, from outside
                  └── the emulator: the gateway of everybody

Nothing leaves the machine: what the emulator does not know it refuses. Everything is at its real address.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import docker
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from tests.image.compose import TEST_IMAGE
from tests.image.made import LABEL, gone
from tests.lab.product import eventually


@dataclass(frozen=True, slots=True)
class Place:
    """A network: its name, and how its addresses begin.

    `station` is how the MAC of everything that must not leak begins: Docker makes the same ones of the
    addresses that end in 64 to 79. `auto`: all whose address is not chosen are among them.
    """

    name: str
    net4: str
    net6: str
    station: str
    auto: bool = False

    @property
    def gateways(self) -> tuple[str, str]:
        """The emulator's second addresses: Docker cannot make a container its own gateway."""
        return f"{self.net4}254", f"{self.net6}fe"


HERE = Place(f"{LABEL}-internet", "10.213.190.", "fd5c:5c1e:d390::", "02:42:0a:d5:be:4")
NET4, NET6, STATION = HERE.net4, HERE.net6, HERE.station
OUTSIDE = "203.0.113."
"""A network on the host's other side, where who asks for published ports has his address."""
CLOUDFLARE = (
    "ip route del default; ip -6 route del default;"
    "ip address add {}/24 dev eth0; ip address add {}/64 dev eth0 nodad;"
    'printf %s "$CONFIG" >/tmp/config.json; exec python -m tests.cloudflare --config /tmp/config.json'
)
ASK = ["python", "-m", "tests.cloudflare", "--config", "/tmp/config.json", "ask"]
STANDIN = ["python", "-m", "tests.image.standin"]
OBSERVER = ["python", "-m", "tests.image.observer"]
SERVED = ("8388", "8080", "5800", "22")
"""Ports that examples serve: answers to outside may leave in clear."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The product's frames: how many by the reason they may be there, and what has none, by kind."""

    counts: dict[str, int]
    leaks: dict[str, int]


class Internet:
    """Everything around the examples; leaving removes all of it."""

    def __init__(self, engine: docker.DockerClient, place: Place = HERE) -> None:
        self.engine = engine
        self.place = place
        self._stack = ExitStack()
        self._told = 0

    def __enter__(self) -> Self:
        """Put it up and wait until it works."""
        with ExitStack() as stack:
            place = self.place
            subnets = (f"{place.net4}0/24", f"{place.net6}/64")
            self.network = self._network(stack, place.name, subnets, place.gateways)
            if place == HERE:
                self._network(stack, f"{LABEL}-outside", (f"{OUTSIDE}0/24",))
            self.volume = self.engine.volumes.create(labels={LABEL: ""})
            stack.callback(gone, self.volume)
            self._cloudflare = self.run(
                stack,
                command=["sh", "-c", CLOUDFLARE.format(*place.gateways)],
                environment={"CONFIG": json.dumps({"state": "/cloudflare", "uplink": "eth0"})},
                cap_add=["NET_ADMIN", "SYS_ADMIN"],
                security_opt=["seccomp=unconfined", "apparmor=unconfined"],
                devices=["/dev/net/tun:/dev/net/tun:rwm"],
                volumes={self.volume.name: {"bind": "/cloudflare", "mode": "rw"}},
                **self.placed(2),
            )
            self._observer = self.run(
                stack,
                command=[*OBSERVER, f"br-{self.network.id[:12]}", place.station, *subnets, "--", *SERVED],
                network_mode="host",
                cap_drop=["ALL"],
                cap_add=["NET_RAW", "NET_ADMIN"],
            )
            for one, word in ((self._cloudflare, b"ready"), (self._observer, b"watching")):
                eventually(partial(said, one, word), word.decode(), 20)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self._stack.close()

    def _network(
        self, stack: ExitStack, name: str, subnets: tuple[str, ...], gateways: tuple[str, ...] = ()
    ) -> Any:
        """Make a network; with `gateways` those are its containers' way out, not the bridge."""
        aux = [{f"DefaultGatewayIPv{4 if '.' in one else 6}": one} for one in gateways]
        pools = [
            IPAMPool(
                subnet=subnet,
                aux_addresses=aux[at] if aux else None,
                gateway=f"{self.place.net4}1" if self.place.auto and not at else None,
                iprange=subnet.replace(".0/24", ".64/28") if self.place.auto and not at else None,
            )
            for at, subnet in enumerate(subnets)
        ]
        made = self.engine.networks.create(
            name,
            driver="bridge",
            enable_ipv6=len(subnets) > 1,
            ipam=IPAMConfig(pool_configs=pools),
            # Who comes from there keeps his address.
            options={"com.docker.network.bridge.enable_ip_masquerade": "false"},
            labels={LABEL: ""},
        )
        stack.callback(gone, made)
        return made

    def placed(self, host: int) -> dict[str, Any]:
        """Return the SDK's words for a place in the network."""
        here = self.engine.api.create_endpoint_config(
            ipv4_address=f"{self.place.net4}{host}", ipv6_address=f"{self.place.net6}{host:x}"
        )
        name = self.network.name
        return {"network": name, "networking_config": {name: here}}

    def run(self, stack: ExitStack, **arguments: Any) -> Container:
        """Start a container of the test image; it goes with the stack."""
        sysctls = {"net.ipv6.conf.all.disable_ipv6": "0"} if "network" in arguments else {}
        made = self.engine.containers.create(
            image=TEST_IMAGE,
            init=True,
            labels=[LABEL],
            detach=True,
            healthcheck={"test": ["NONE"]},
            sysctls=sysctls,
            **arguments,
        )
        stack.callback(gone, made)
        made.start()
        return made

    def cloudflare(self, method: str, path: str, body: object = None) -> Any:
        """Ask the emulator's control interface."""
        more = [] if body is None else [json.dumps(body)]
        done = self._cloudflare.exec_run([*ASK, method, path, *more])
        assert done.exit_code == 0, done.output.decode()
        return json.loads(done.output)

    def keep(self, name: str, text: str) -> None:
        """Write a file into the volume that everybody has as /cloudflare."""
        done = self._cloudflare.exec_run(["sh", "-c", f"printf %s {text} >/cloudflare/{name}"])
        assert done.exit_code == 0, done.output

    def heard(self) -> Heard:
        """Return what the product sent since this was last asked. Raises AssertionError if any was missed."""
        self._observer.kill("SIGUSR1")

        def lines() -> list[bytes]:
            printed: list[bytes] = self._observer.logs().splitlines()[1:]
            return printed if len(printed) > self._told else []

        told = json.loads(eventually(lines, "the observer tells")[-1])
        self._told += 1
        assert not told["missed"], told
        return Heard(told["counts"], told["leaks"])

    def who(self, address: str, port: int) -> str:
        """Ask for a page from the host's other side, or from the host itself; return what it says."""
        source = "127.0.0.1" if address == "127.0.0.1" else f"{OUTSIDE}1"
        ask = [*STANDIN, "who", address, str(port), source]
        with ExitStack() as stack:
            client = self.run(stack, command=ask, network_mode="host")
            client.wait(timeout=20)
            return str(client.logs().decode().strip())

    def asked(self, container: Container, *proxy: str, timeout: float = 5.0) -> dict[str, list[str]]:
        """Return what the origin says of a container, by each way to name the origin."""
        done = container.exec_run([*STANDIN, "ask", str(timeout), *proxy])
        assert done.exit_code == 0, done.output.decode()
        told: dict[str, list[str]] = json.loads(done.output)
        return told

    def registrations(self) -> int:
        """Return how often the API was asked for a new device."""
        calls = self.cloudflare("GET", "/calls")
        return sum(one["method"] == "POST" and one["path"].endswith("/reg") for one in calls)


def said(container: Container, word: bytes) -> bool:
    """Say whether the container has printed this."""
    return word in container.logs()
