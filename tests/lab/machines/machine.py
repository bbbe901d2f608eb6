"""What a machine is made of: data alone. `rows_*.py` have one for each shape, `built.py` builds them.

    C        the client of topology.py, off-link
    │
    R        topology.py's router ── F, the emulated Cloudflare
    │  to-m 100.127.0.1, fd7f::1
    G        the provider: gateway, NAT, resolvers, other machines; its ends of the cables are `p-eth0` …
    │  one or more cables, each with an observer on the provider's end
    M        the machine under test: eth0 …
    │  docker0, or what the row says
    N1, N2   containers, virtual machines, pods

Public addresses are out of 5.9.0.0/16 and 2a01:4f8::/32, which R sends to G.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

type Mode = Literal["proxy", "full", "own"]

QUESTIONS: dict[str, str] = {
    "ssh": "SSH to every address: new connections, and those that were open before",
    "ports": "published ports, and the host's own UDP service",
    "private": "from the machine to its private networks",
    "platform": "from the machine to resolver, metadata and other platform addresses",
    "neighbours": "containers: out, in, and with the machine",
    "others": "what other software sends: marked packets, multicast, tunnels",
    "shadowsocks": "Shadowsocks on every public address, TCP and UDP, leaving through WARP",
    "closed": "services of the machine are not reachable from the tunnel",
    "leaks": "0 probes in the clear",
    "stop": "a stop leaves the machine as it was and breaks no session",
}
"""In the order of the table in docs/security.md."""


@dataclass(frozen=True, slots=True)
class Cable:
    """One interface of the machine: its addresses, and the provider's. `more`: sources that are also its.

    As providers do, G forwards nothing from it that has another source.
    """

    name: str
    addresses: tuple[str, ...]
    provider: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Door:
    """An address by which the machine is reached: from C, or from the provider's `visitor` address.

    `shadowsocks`: whether the server is to be there too.
    """

    address: str
    visitor: str = ""
    shadowsocks: bool = True


@dataclass(frozen=True, slots=True)
class Far:
    """A service at the provider: TCP 80 and UDP 53 answer at `address`, on G's interface `device`."""

    address: str
    what: Literal["private", "platform"] = "private"
    device: str = "lo"


@dataclass(frozen=True, slots=True)
class Container:
    """A namespace behind the machine, N1 and so on: a port of `bridge`, or a cable of its own without.

    `routes` are `ip` lines in it. `out`: the address that the world sees it by, empty if it has no way out.
    """

    addresses: tuple[str, ...]
    bridge: str = "docker0"
    routes: tuple[str, ...] = ()
    out: str = ""
    asked: tuple[str, ...] = ()
    """By which of its addresses the machine asks for TCP 80; all of them when empty."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published port of the machine at `address`, asked by C."""

    address: str
    port: int
    transport: Literal["tcp", "udp"]


@dataclass(frozen=True, slots=True)
class Marked:
    """Packets that other software of the machine marks. `direct`: by the uplink they leave, as before."""

    mark: int
    direct: bool


@dataclass(frozen=True, slots=True)
class Multicast:
    """A packet of this IP protocol that never leaves the link; `group` may be unicast, on the link too."""

    protocol: int
    group: str
    device: str = "eth0"


@dataclass(frozen=True, slots=True)
class Machine:
    """One shape. Lines are what follows `ip`; those of other families begin with -6."""

    name: str
    shape: str
    """What is particular about it, as docs/security.md shows it."""
    cables: tuple[Cable, ...]
    doors: tuple[Door, ...]
    lines: tuple[str, ...] = ()
    provider: tuple[str, ...] = ()
    """`ip` lines at the provider."""
    nat: Mapping[str, str] = field(default_factory=dict)
    """Public address to the machine's own, one to one."""
    far: tuple[Far, ...] = ()
    containers: tuple[Container, ...] = ()
    published: tuple[Published, ...] = ()
    """At port 53 the machine itself answers."""
    peers: tuple[str, ...] = ()
    """Far ends of the machine's own tunnels."""
    marked: tuple[Marked, ...] = ()
    multicast: tuple[Multicast, ...] = ()
    sysctls: Mapping[str, int] = field(default_factory=dict)
    iptables: str = ""
    nft: str = ""
    resolvers: tuple[str, ...] = ()
    """Of /etc/resolv.conf, if it is not the usual one."""
    prepare: str = ""
    """Shell in the machine, last."""
    meanwhile: str = ""
    """Shell in the machine once the product serves, before the first question; it ends where it began."""
    needs: tuple[str, ...] = ()
    """Kinds of links that the kernel must have, as `ip link add` takes them."""
    modes: tuple[Mode, ...] = ("proxy", "full")
    environment: Mapping[str, str] = field(default_factory=dict)
    families: tuple[int, ...] = (4, 6)
    """Of the internet, as the machine reaches it."""
    refused: Mapping[Mode, str] = field(default_factory=dict)
    """Modes that this shape cannot have, and words of the line that refuses them, with nothing changed."""
    warned: Mapping[tuple[Mode, str], str] = field(default_factory=dict)
    """Questions (mode, question) whose answer is no, and the words of the line that says so."""

    def asked(self, mode: Mode) -> tuple[str, ...]:
        """Return the questions that this shape has something to ask about."""
        there = {
            "ports": bool(self.published),
            "private": any(one.what == "private" for one in self.far),
            "platform": any(one.what == "platform" for one in self.far),
            "neighbours": bool(self.containers),
            "others": bool(self.marked or self.multicast),
        }
        return tuple(one for one in QUESTIONS if there.get(one, True))

    def verdicts(self, mode: Mode) -> dict[str, str]:
        """Return what is expected, by question: yes, warned, refused."""
        if mode in self.refused:
            return dict.fromkeys(self.asked(mode), "refused")
        return {one: "warned" if (mode, one) in self.warned else "yes" for one in self.asked(mode)}
