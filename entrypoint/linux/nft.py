"""The door to nftables: the `nft` program, one transaction for each call."""

import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import anyio.to_thread

from entrypoint.linux.kernel_objects import Visit
from entrypoint.linux.raw_netlink import HEADER
from entrypoint.linux.run import run
from entrypoint.linux.sockets import watch_groups
from entrypoint.linux.visits import visit

OUR_NAME = b"ss_warp\0"
NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
"""linux/netlink.h, linux/netfilter/nfnetlink.h: every committed change of the ruleset."""
NEWTABLE, DELTABLE = 0x0A00, 0x0A02
FAMILIES = {1: "inet", 3: "arp"}
"""NFPROTO_ of our tables (linux/netfilter.h)."""


class SystemNft:
    """nftables of this network namespace (see world.Nft)."""

    def __init__(self) -> None:
        self._gone: set[str] = set()
        """Our tables whose end was the last that was heard of them."""

    async def load(self, text: str) -> None:
        """Load `text` atomically."""
        # In a thread, because run() blocks: the program is short, and two children would not be faster.
        await anyio.to_thread.run_sync(run, ("nft", "-f", "-"), text)
        self._gone.clear()

    async def listing(self, family: str, table: str) -> str:
        """Return the table as text, without counters."""
        # After a flush three programs fewer run before the table is back.
        if f"{family} {table}" in self._gone:
            return ""
        try:
            # Without counters (-s): they change with every packet, and two listings are compared.
            return await anyio.to_thread.run_sync(run, ("nft", "-s", "list", "table", family, table))
        except TimeoutError:
            raise
        except OSError:
            # A failure must not look like a table that is gone: the firewall would be taken for open.
            tables = await anyio.to_thread.run_sync(run, ("nft", "list", "tables"))
            if f"table {family} {table}" in tables.splitlines():
                raise
            return ""

    async def visit(self, visits: Sequence[Visit], expected: Mapping[Visit, str]) -> Mapping[Visit, str]:
        """Return the interface that each visit's answer leaves by."""
        return await visit(visits, expected)

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Subscribe to changes of the ruleset."""
        return watch_groups(NETLINK_NETFILTER, [NFNLGRP_NFTABLES], self.concerns_us)

    def concerns_us(self, data: bytes) -> bool:
        """Return whether one of these messages is about our tables; note which of them ended."""
        # Every message but the end of a transaction names its table.
        if OUR_NAME not in data:
            return False
        while len(data) > HEADER:
            length, kind = struct.unpack_from("=IH", data)
            table = f"{FAMILIES.get(data[HEADER], '')} ss_warp"
            if kind in {NEWTABLE, DELTABLE} and OUR_NAME in data[:length]:
                (self._gone.add if kind == DELTABLE else self._gone.discard)(table)
            data = data[max((length + 3) & ~3, HEADER) :]
        return True
