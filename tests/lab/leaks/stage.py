"""Where the leak cases are played: own or host placement, `full` or `proxy`, with a product that serves.

    own    tests/lab/topology.py
    host   tests/lab/host_topology.py: second addresses, a second NIC, Docker's bridge and rules

Every ground is shown first with the product off: the wire then sees every probe (L-01).
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tests.cloudflare.netns import Namespace
from tests.lab.host_topology import UDP, host_lab
from tests.lab.leaks.asking import answers, asker
from tests.lab.leaks.injected import (
    ANSWERING,
    BIG,
    NEIGHBOUR,
    ON_LINK,
    PUSHED,
    at_the_edge,
    everybody,
    neighbourly,
    routed,
)
from tests.lab.probes import Prober
from tests.lab.product import Product, eventually
from tests.lab.scene import TRACE4, TRACE6, Scene, client_of, watched
from tests.lab.senders import PUBLIC, THE_SERVERS_UNBOUND, UNBOUND, Kind, seen
from tests.lab.topology import WIRE, Lab
from tests.lab.visitors import traced
from tests.lab.wire import Wire
from tests.pace import fewer

PROBES = fewer(int(os.environ.get("LAB_PROBES", "1000")))
"""Probes of each kind."""

REPEAT = int(os.environ.get("LAB_REPEAT", "20"))

ECHO = 5006
"""A UDP port that is published, besides the host's own."""

SECOND_WIRE = "to-h2"


@dataclass(frozen=True, slots=True)
class Ground:
    """A lab, and what its wire saw while the product was off: sent and seen, by kind and circumstance."""

    name: str
    lab: Lab
    control: dict[str, tuple[Counter[str], Counter[str]]]
    exposed: Counter[str]
    """How an address behind it answered whoever asked on the uplink's segment, by protocol."""

    @property
    def own(self) -> bool:
        """Whether the namespace is the product's own."""
        return self.name == "own"


@contextmanager
def ground(name: str, directory: Path) -> Iterator[Ground]:
    """Build the lab of this placement and show that its wire sees everything."""
    made = Lab(directory) if name == "own" else host_lab(directory)
    with made as lab:
        router = Namespace.named(lab.name("R"))
        # It answers for what is not there, at once and also by the port it came from.
        router.sysctl(**{name.replace("/", "__"): value for name, value in ANSWERING.items()})
        router.close()
        for one in (PUBLIC[1], NEIGHBOUR[1]):
            lab.run("R", ["ip", "-6", "neigh", "add", "proxy", one, "dev", WIRE])
        for target in (TRACE4, TRACE6):
            assert traced(lab, target) is not None, "the direct path"
        control = {
            "as it is": controlled(lab, everybody(full=True), PROBES),
            "to the edge": controlled(lab, at_the_edge(full=True), 50),
            "to neighbours": controlled(lab, neighbourly(full=True), 50),
            "fragments": controlled(lab, BIG if name == "own" else BIG[:-1], 20),
        }
        for how, routes in ("pushed routes", PUSHED), ("on link", ON_LINK):
            with routed(lab, routes):
                control[how] = controlled(lab, everybody(full=True), 50)
        yield Ground(name, lab, control, exposed(lab))


def exposed(lab: Lab) -> Counter[str]:
    """Put an address on another interface of H and return, by kind, its answers on the wire."""
    behind = (IPv4Address("172.16.0.77"), IPv6Address("fd00:77::77"))
    lab.run("H", ["ip", "link", "add", "behind", "type", "bridge"])
    for line in ("link set behind up", *(f"address add {one} dev behind" for one in behind)):
        lab.run("H", ["ip", *line.split()])
    with Wire(lab.name("R"), WIRE) as wire, asker(lab, behind) as neighbour:
        neighbour.ask()
        kinds = ("arp", "tcp")
        eventually(
            lambda: {*kinds} <= {one.kind for one in wire.leaks() if answers(one, behind)}, "it answers"
        )
    lab.run("H", ["ip", "link", "del", "behind"])
    return Counter(one.kind for one in wire.leaks() if answers(one, behind))


def controlled(lab: Lab, some: Sequence[Kind], each: int) -> tuple[Counter[str], Counter[str]]:
    """Send `each` of every kind without a supervisor; return what was sent and what was seen."""
    with Wire(lab.name("R"), WIRE) as wire:
        with Prober(lab, some) as prober:
            prober.probed(each)
        assert not prober.refused
    return prober.went, seen(wire, some)


@dataclass(frozen=True, slots=True)
class Stage:
    """A product that serves on a ground, and its client."""

    ground: Ground
    mode: str
    scene: Scene

    @property
    def name(self) -> str:
        """For figures."""
        return f"{self.ground.name}, {self.mode}"

    @property
    def full(self) -> bool:
        """Whether everybody's packets are kept in, not only ssserver's."""
        return self.mode == "full"

    @property
    def lab(self) -> Lab:
        """Where it is."""
        return self.ground.lab

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What must not leave in clear."""
        return everybody(full=self.full)

    @property
    def by_route(self) -> tuple[Kind, ...]:
        """What the routes alone keep in: what binds the uplink's address rests on nftables alone."""
        return (*UNBOUND, *THE_SERVERS_UNBOUND) if self.full else ()

    @contextmanager
    def watched(self) -> Iterator[Wire]:
        """Watch every wire; leaving asserts that nothing left in clear."""
        with ExitStack() as stack:
            if not self.ground.own:
                stack.enter_context(watched(self.lab, port=SECOND_WIRE))
            yield stack.enter_context(watched(self.lab))

    def whole(self, within: float = 10.0) -> None:
        """Wait until both families get through again, and the state says so."""
        eventually(lambda: self.scene.reaches(TRACE4), "IPv4 through Shadowsocks", within)
        eventually(lambda: self.scene.reaches(TRACE6), "IPv6 through Shadowsocks", within)
        self.scene.product.reached("connected", within)

    def keeps(self, some: Sequence[Kind], each: int = PROBES) -> int:
        """Send `each` probes of every kind; assert that none left in clear; return how many."""
        with self.watched(), Prober(self.lab, some) as prober:
            return prober.probed(each)


@contextmanager
def staged(ground: Ground, mode: str, directory: Path) -> Iterator[Stage]:
    """Run the product on this ground."""
    environment = {
        "NETWORK": ground.name,
        "ROUTE_MODE": mode,
        "FIREWALL_INPUT_PORTS": f"{UDP}/udp,{ECHO}/udp",
    }
    with ExitStack() as stack:
        product = Product(ground.lab, directory / "state", environment=environment)
        stack.enter_context(product).serving()
        client = stack.enter_context(client_of(ground.lab, product, directory))
        stage = Stage(ground, mode, Scene(ground.lab, product, client))
        stage.whole()
        yield stage
