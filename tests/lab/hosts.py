"""More hosts beside H, each behind a port of R of its own: they share a volume, not a network."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

from tests.cloudflare.netns import run
from tests.lab.host_topology import UDP
from tests.lab.product import Product
from tests.lab.topology import Lab, Place

GATEWAY = "203.0.113.1"
FIRST = 100


@contextmanager
def more_hosts(lab: Lab, count: int) -> Iterator[list[Place]]:
    """Yield `count` places with the addresses 203.0.113.101 and so on, IPv4 only."""
    with ExitStack() as stack:
        places = []
        for number in range(1, count + 1):
            place = cast("Place", f"H{number}")
            stack.enter_context(_host(lab, place, f"to-h{number}", f"203.0.113.{FIRST + number}"))
            places.append(place)
        yield places


@contextmanager
def _host(lab: Lab, place: Place, port: str, address: str) -> Iterator[None]:
    name, router = lab.name(place), lab.name("R")
    run("ip", "netns", "add", name)
    try:
        link = ["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name]
        run("ip", "-n", router, *link)
        for line in (f"link set {port} up", f"route add {address} dev {port}"):
            run("ip", "-n", router, *line.split())
        for line in (
            "link set lo up",
            "link set eth0 up",
            f"address add {address}/32 dev eth0",
            f"route add {GATEWAY} dev eth0",
            f"route add default via {GATEWAY}",
        ):
            run("ip", "-n", name, *line.split())
        yield
    finally:
        run("ip", "netns", "del", name)


LONGEST = 0.3


def on_host(lab: Lab, state: Path, mode: str, **environment: str) -> Product:
    """Return the product in host placement."""
    more = {"NETWORK": "host", "ROUTE_MODE": mode, "FIREWALL_INPUT_PORTS": f"{UDP}/udp", **environment}
    return Product(lab, state, environment=more)
