"""How nftables spells it: chains, sets of ports, prefixes and marked destinations. Light to import."""

from collections.abc import Iterable, Iterator
from ipaddress import collapse_addresses

from entrypoint.network.plan import Destination, Mark, Network, Ports

type Lines = Iterator[str]

WORDS: dict[int, str] = {4: "ip", 6: "ip6"}


def to_marked(mark: Mark, destinations: Iterable[Destination]) -> Lines:
    """Yield the rules that accept marked packets to these: before what is ssserver's.

    Kernel WireGuard's packets keep the user of what is inside them; ssserver itself may not set a mark.
    """
    for word, places in ends_of(destinations):
        yield f"{marked(mark)} {word} daddr . meta l4proto . th dport {places} accept"


def marked(mark: Mark) -> str:
    """Return the match of packets that carry the mark."""
    return f"meta mark & {mark.mask:#x} == {mark.value:#x}"


def ends_of(destinations: Iterable[Destination]) -> Iterator[tuple[str, str]]:
    """Yield `ip` or `ip6` and a set of address, protocol and port, for each family there is."""
    for version, word in WORDS.items():
        same = (d for d in destinations if d.address.version == version)
        places = ", ".join(sorted(f"{d.address} . {d.transport} . {d.port}" for d in same))
        if places:
            yield word, f"{{ {places} }}"


def to_ports(spans: Iterable[Ports], end: str) -> Lines:
    """Yield the rules that accept these ports; `end` is sport or dport."""
    for transport in ("tcp", "udp"):
        same = (span for span in spans if span.transport == transport)
        ports = ", ".join(dict.fromkeys(f"{span.first}-{span.last}" for span in same))
        if ports:
            yield f"{transport} {end} {{ {ports} }} accept"


def by_family(networks: Iterable[Network]) -> Iterator[tuple[str, str]]:
    """Yield `ip` or `ip6` and a set of prefixes that do not overlap, which nft would refuse."""
    for version, word in WORDS.items():
        same = [network for network in networks if network.version == version]
        if same:
            yield word, f"{{ {', '.join(map(str, collapse_addresses(same)))} }}"  # type: ignore[type-var]


def chain_of(name: str, hook: str | None, rules: Iterable[str]) -> Lines:
    """Yield the lines of a chain; without a hook it is gone to."""
    yield f"\tchain {name} {{"
    if hook:
        yield f"\t\ttype {hook};"
    yield from (f"\t\t{rule}" for rule in rules)
    yield "\t}"
