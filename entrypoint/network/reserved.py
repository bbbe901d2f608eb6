"""WARP's reserved bytes in kernel WireGuard's messages, as nft chains: the kernel itself knows only zeros.

The kernel encrypts packet by packet and leaves the UDP checksum to be made after these hooks, so writing is
safe. What comes in may have been checked already, or not: `ct` makes connection tracking check it before
the bytes are cleared, since afterwards it would be wrong, and IPv6 has no way to do without.
"""

from collections.abc import Iterable
from itertools import chain

from entrypoint.network.plan import Destination, Mark
from entrypoint.network.spelling import Lines, chain_of, ends_of, marked

RESERVED = "@th,72,24"
"""Bytes 1 to 3 behind a UDP header, in bits."""


def reserved_chains(octets: bytes, mark: Mark, endpoints: Iterable[Destination]) -> Lines:
    """Yield the chains that write the bytes into what is marked and goes to `endpoints`; clear answers."""
    ends = list(ends_of(endpoints))
    write = (
        f"{marked(mark)} {word} daddr . meta l4proto . th dport {places} {RESERVED} set 0x{octets.hex()}"
        for word, places in ends
    )
    clear = (f"{word} saddr . meta l4proto . th sport {places} {RESERVED} set 0" for word, places in ends)
    yield from chain_of("write_reserved", "filter hook output priority mangle; policy accept", write)
    yield from chain_of(
        "clear_reserved",
        "filter hook input priority mangle; policy accept",
        chain(("ct state invalid accept",), clear),
    )
