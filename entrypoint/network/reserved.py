"""WARP's reserved bytes in kernel WireGuard's messages, as nft chains: the kernel itself knows only zeros.

The kernel encrypts packet by packet and leaves the UDP checksum to be made after these hooks, so writing is
safe. What comes in may have been checked already, or not: `ct` makes connection tracking check it before
the bytes are cleared, since afterwards it would be wrong, and IPv6 has no way to do without.
"""

from collections.abc import Iterator

from entrypoint.network.policies import Reserved

RESERVED = "@th,72,24"
"""Bytes 1 to 3 behind a UDP header, in bits."""

FAMILIES = ((4, "ip"), (6, "ip6"))


def reserved_chains(reserved: Reserved) -> Iterator[str]:
    """Yield the lines of the two chains."""
    marked = f"meta mark & {reserved.mark.mask:#x} == {reserved.mark.value:#x}"
    yield "\tchain write_reserved {"
    yield "\t\ttype filter hook output priority mangle; policy accept;"
    for word, places in _places(reserved):
        where = f"{word} daddr . meta l4proto . th dport {places}"
        yield f"\t\t{marked} {where} {RESERVED} set 0x{reserved.octets.hex()}"
    yield "\t}"
    yield "\tchain clear_reserved {"
    yield "\t\ttype filter hook input priority mangle; policy accept;"
    yield "\t\tct state invalid accept"
    for word, places in _places(reserved):
        yield f"\t\t{word} saddr . meta l4proto . th sport {places} {RESERVED} set 0"
    yield "\t}"


def _places(reserved: Reserved) -> Iterator[tuple[str, str]]:
    for version, word in FAMILIES:
        same = sorted(
            f"{one.address} . udp . {one.port}"
            for one in reserved.endpoints
            if one.address.version == version
        )
        if same:
            yield word, f"{{ {', '.join(same)} }}"
