"""What the output chain of our table says of a packet: the words that killswitch.py uses, and no others.

A word that is not known is an error, so that no rule is passed over. tests/lab/test_killswitch.py holds the
same rulesets against the real nftables.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Literal

from entrypoint.addresses import Address


@dataclass(frozen=True, slots=True)
class Packet:
    """One that this machine sends by `oif`. `reply`: of a connection that began elsewhere."""

    oif: str
    source: Address
    destination: Address
    transport: Literal["tcp", "udp"] = "tcp"
    sport: int = 40000
    dport: int = 443
    reply: bool = False
    syn: bool = True
    mark: int = 0
    uid: int = 0
    to_us: bool = False
    """Whether the destination is an address of this machine."""


def passes(table: str, packet: Packet, chain: str = "output") -> bool:
    """Return whether a packet passes the chain of the table's text; without a table everything does."""
    if f"chain {chain} {{" not in table:
        return True
    lines = table.split(f"chain {chain} {{\n")[1].split("\n\t}")[0].splitlines()
    rules = [line.strip() for line in lines if line.strip() and not line.strip().startswith("type ")]
    for rule in rules:
        match _judged(rule, packet):
            case "accept":
                return True
            case "drop" | "reject":
                return False
            case str(other) if other.startswith("goto "):
                return passes(table, packet, other.removeprefix("goto "))
    return "policy drop" not in lines[0]


def _judged(rule: str, packet: Packet) -> str | None:
    """Return the rule's verdict on this packet, None when it says nothing about it."""
    rest = rule
    while rest:
        for pattern, holds in WORDS.items():
            if match := re.match(rf"{pattern}(?: |$)", rest):
                rest = rest[match.end() :]
                if not holds(match, packet):
                    return None
                break
        else:
            verdict = re.fullmatch(
                r"(?:counter )?(accept|drop|reject|goto \w+)(?: with (?:icmpx admin-prohibited|tcp reset))?",
                rest,
            )
            assert verdict, f"a word that is not known: {rest!r} in {rule!r}"
            return verdict[1]
    raise AssertionError(f"no verdict: {rule}")


type Holds = Callable[[re.Match[str], Packet], bool]


def _members(text: str) -> list[str]:
    return [one.strip().strip('"') for one in text.strip("{} ").split(",")]


def _device(match: re.Match[str], packet: Packet) -> bool:
    return (packet.oif in _members(match[2])) != bool(match[1])


def _address(match: re.Match[str], packet: Packet) -> bool:
    end = packet.destination if match[3] == "daddr" else packet.source
    version = 6 if match[1] else 4
    inside = any(end in ip_network(one) for one in _members(match[4]) if end.version == version)
    return end.version == version and inside != bool(match[2])


def _port(match: re.Match[str], packet: Packet) -> bool:
    port = packet.sport if match[2] == "sport" else packet.dport
    spans = [tuple(map(int, one.split("-"))) for one in _members(match[3])]
    return packet.transport == match[1] and any(span[0] <= port <= span[-1] for span in spans)


def _place(match: re.Match[str], packet: Packet) -> bool:
    places = [one.split(" . ") for one in _members(match[2])]
    return any(
        (ip_address(at), transport, int(port)) == (packet.destination, packet.transport, packet.dport)
        for at, transport, port in places
    )


SET = r"(\{[^}]*\}|[^ ]+)"
WORDS: dict[str, Holds] = {
    r"meta skuid (\d+)": lambda match, packet: packet.uid == int(match[1]),
    r"ct direction (original|reply)": lambda match, packet: packet.reply == (match[1] == "reply"),
    rf"oifname (!= )?{SET}": _device,
    r"meta mark & (0x\w+) == (0x\w+)": lambda match, packet: (
        packet.mark & int(match[1], 16) == int(match[2], 16)
    ),
    rf"ip(6)? daddr \. meta l4proto \. th dport {SET}": _place,
    rf"ip(6)? (?!daddr \.)(!= )?(daddr|saddr) {SET}": _address,
    rf"(tcp|udp) (sport|dport) {SET}": _port,
    r"tcp flags & \(syn \| ack\) (!=|==) syn": lambda match, packet: (
        packet.transport == "tcp" and packet.syn == (match[1] == "==")
    ),
    r"meta l4proto tcp": lambda _, packet: packet.transport == "tcp",
    r"meta nfproto ipv([46])": lambda match, packet: packet.destination.version == int(match[1]),
    r"ct state untracked": lambda *_: False,
    r"meta l4proto igmp": lambda *_: False,
    r"icmp type \{[^}]*\}": lambda *_: False,
    r"icmpv6 type \{[^}]*\}": lambda *_: False,
    r"fib daddr type \{[^}]*\}": lambda _, packet: packet.to_us,
}
