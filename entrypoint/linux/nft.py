"""The door to nftables: the `nft` program, one transaction for each call."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio.to_thread

from entrypoint.linux.run import run
from entrypoint.linux.sockets import watch_groups

OUR_NAME: Final = b"ss_warp\0"
NETLINK_NETFILTER: Final = 12
NFNLGRP_NFTABLES: Final = 7
"""linux/netlink.h, linux/netfilter/nfnetlink.h: every committed change of the ruleset."""


class SystemNft:
    """nftables of this network namespace (see world.Nft)."""

    async def load(self, text: str) -> None:
        """Load `text` atomically."""
        # In a thread, because run() blocks: the program is short, and two children would not be faster.
        await anyio.to_thread.run_sync(run, ("nft", "-f", "-"), text)

    async def listing(self, family: str, table: str) -> str:
        """Return the table as text, without counters."""
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

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Subscribe to changes of the ruleset."""
        # Every message but the end of a transaction names its table.
        return watch_groups(NETLINK_NETFILTER, [NFNLGRP_NFTABLES], lambda data: OUR_NAME in data)
