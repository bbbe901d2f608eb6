"""The usual scene: the product serves in H, a client in C, and the wire between is watched."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

from tests.cloudflare.config import EDGE_PORTS
from tests.cloudflare.fabric import LINKS4, LINKS6
from tests.lab.client import Client, Target, shadowsocks_client
from tests.lab.product import Product
from tests.lab.topology import CLIENT, HOST, WIRE, Lab
from tests.lab.wire import Allowed, Packet, Wire, called, looked_up, neighbours, served, wireguard
from tests.pace import longer

TRACE4, TRACE6 = ip_address("1.1.1.1"), ip_address("2606:4700:4700::1111")
RESOLVERS = [TRACE4, TRACE6, ip_address("1.0.0.1"), ip_address("2606:4700:4700::1001")]
"""DNS_ADDRESSES: an outage sends a query to each of them outside the tunnel."""
EDGE = [ip_network("162.159.192.0/24"), ip_network("2606:4700:d0::/48")]


@dataclass(frozen=True, slots=True)
class Scene:
    """A running product and its client."""

    lab: Lab
    product: Product
    client: Client

    @property
    def engine(self) -> int:
        """The pid of the userspace engine."""
        (pid,) = self.product.children("ss-warp-wireguard")
        return pid

    def reaches(self, target: Target) -> bool:
        """Say whether `target` sees a request from here come out of WARP, right now."""
        with suppress(OSError, HTTPException):  # also cut in the middle of an answer
            return self.client.trace(target, timeout=longer(0.5)).warp == "on"
        return False


def reasons(lab: Lab, *, first_run: bool = False) -> list[Allowed]:
    """Return what may be on the wire: the tunnel, Shadowsocks, and how the account is fetched.

    The first run also asks once, outside the tunnel, which address the world sees.
    """
    return [
        *([called("public address", [TRACE4, TRACE6], 443)] if first_run else ()),
        neighbours(),
        wireguard(EDGE, EDGE_PORTS),
        served("shadowsocks", 8388, ("tcp", "udp"), CLIENT),
        Allowed("closed port", _closed_port),
        called("api", lab.cloudflare.config.api_addresses, 443),
        looked_up(["api.cloudflareclient.com", "engage.cloudflareclient.com"], RESOLVERS),
    ]


def _closed_port(packet: Packet) -> bool:
    """While engine or server is dead, H's kernel may tell who asks it, quoting what was sent to it."""
    unreachable = packet.kind == "icmp" and packet.payload[:2] == b"\x03\x03"
    unreachable |= packet.kind == "icmp6" and packet.payload[:2] == b"\x01\x04"
    if not (packet.from_host and unreachable):
        return False
    # A wireguard-go that uses UDP_GRO may answer from an address of its inner link instead of the one asked.
    return packet.destination in CLIENT or any(packet.destination in one for one in (*EDGE, LINKS4, LINKS6))


@contextmanager
def watched(lab: Lab, *more: Allowed, first_run: bool = False, port: str = WIRE) -> Iterator[Wire]:
    """Watch the wire at this port of R; leaving asserts that nothing left in clear, `more` aside."""
    with Wire(lab.name("R"), port, [*reasons(lab, first_run=first_run), *more]) as wire:
        yield wire
        leaks = wire.leaks()
        assert not leaks, f"{len(leaks)} in clear: {[str(one) for one in leaks[:5]]}"


@contextmanager
def client_of(lab: Lab, product: Product, directory: Path, server: Target = HOST[0]) -> Iterator[Client]:
    """Run a client in C with the password of the product."""
    password = product.secrets()["password"]
    with shadowsocks_client(lab, directory, server, "2022-blake3-aes-128-gcm", password) as client:
        yield client


@contextmanager
def serving(lab: Lab, directory: Path, environment: Mapping[str, str] | None = None) -> Iterator[Scene]:
    """Run the product with its state in `directory`, and a client."""
    directory.mkdir(exist_ok=True)
    with ExitStack() as stack:
        product = stack.enter_context(Product(lab, directory / "state", environment=environment)).serving()
        yield Scene(lab, product, stack.enter_context(client_of(lab, product, directory)))


def exit_of(lab: Lab, target: Target) -> str:
    """Return where the newest device's packets to `target` come out."""
    device = lab.cloudflare.edge.devices()[-1]
    return device.exit4 if isinstance(target, IPv4Address) else device.exit6
