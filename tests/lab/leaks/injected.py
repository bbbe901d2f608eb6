"""What is done to the lab, and the kinds of probes for it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from tests.lab.senders import ANYBODY, SSSERVER, THE_SERVERS, Kind, kinds
from tests.lab.topology import WIRE, Lab

NEIGHBOUR = ("203.0.113.99", "2001:db8:7::99")
"""Public addresses on the uplink's own segment; R answers for them."""
ENDPOINT = ("162.159.192.1", "2606:4700:d0::a29f:c001")

WITHOUT_RULES = (
    "for f in 4 6; do for p in $(seq 16 20) $(seq 32757 32761) 32764; do "
    "while ip -$f rule del priority $p 2>/dev/null; do :; done; done; done"
)
WITHOUT_TABLE = (
    "for f in 4 6; do ip -$f route flush table 51820; done; ip link del ssw-null 2>/dev/null; true"
)
WITHOUT_NFT = "nft delete table inet ss_warp; nft delete table arp ss_warp"
PUSHED = (
    *(f"route add {one} via 203.0.113.1 dev eth0 proto dhcp" for one in ("0.0.0.0/1", "128.0.0.0/1")),
    "route add 9.9.9.0/25 via 203.0.113.1 dev eth0 proto dhcp",
    *(f"-6 route add {one} via 2001:db8:7::1 dev eth0 proto ra" for one in ("::/1", "8000::/1")),
    "-6 route add 2620:fe::/64 via 2001:db8:7::1 dev eth0 proto ra",
)
"""What TunnelVision pushes: halves of everything, then the target's own neighbourhood."""
ANSWERING = {
    f"ipv4/conf/{WIRE}/proxy_arp": 1,
    f"ipv4/conf/{WIRE}/proxy_arp_pvlan": 1,
    f"ipv4/neigh/{WIRE}/proxy_delay": 0,
    f"ipv6/conf/{WIRE}/proxy_ndp": 1,
    f"ipv6/neigh/{WIRE}/proxy_delay": 0,
}
ON_LINK = (
    "route add 0.0.0.0/1 dev eth0",
    "-6 route add 2620::/16 dev eth0",
    "-6 route add 2606::/16 dev eth0",
)
"""What TunnelCrack's LocalNet claims; R answers for the targets there."""


def to(targets: tuple[str, str], some: Sequence[Kind], port: int = 0) -> tuple[Kind, ...]:
    """Return these kinds, sent to other targets."""
    return tuple(
        replace(one, target=targets[one.version == 6], port=port or one.port, name=f"{one.name} {targets[0]}")
        for one in some
    )


# Where connections are tracked, a fragment without a beginning waits for it: the last kind is for others.
BIG = (
    *kinds("big", ("udp",), size=65507),
    *kinds("big, from the uplink", ("udp",), size=65507, bound=True),
    *kinds("not to be cut, from the uplink", ("udp",), size=1400, bound=True, cut=False),
    Kind("odd fragment", protocol="fragment"),
)
SERVERS_BIG = (
    *kinds("ssserver's big", ("udp",), size=65507, uid=SSSERVER),
    Kind("ssserver's odd fragment", protocol="fragment", uid=SSSERVER),
)


def everybody(*, full: bool) -> tuple[Kind, ...]:
    """Return the kinds that must not leave in clear: in `proxy` only ssserver's."""
    return (*ANYBODY, *THE_SERVERS) if full else THE_SERVERS


def neighbourly(*, full: bool) -> tuple[Kind, ...]:
    """Return the same kinds, to public addresses on the uplink's own segment."""
    return to(NEIGHBOUR, everybody(full=full))


def at_the_edge(*, full: bool) -> tuple[Kind, ...]:
    """Return the same kinds, to the endpoint and WireGuard's port."""
    return to(ENDPOINT, everybody(full=full), 2408)


def big(*, full: bool) -> tuple[Kind, ...]:
    """Return big datagrams and fragments."""
    return (*BIG, *SERVERS_BIG) if full else SERVERS_BIG


@contextmanager
def routed(lab: Lab, routes: Sequence[str]) -> Iterator[None]:
    """Put these routes into H's main table while inside."""
    with ExitStack() as stack:
        for one in routes:
            lab.run("H", ["ip", *one.split()])
            stack.callback(lab.run, "H", ["ip", *one.replace(" add ", " del ").split()])
        yield
