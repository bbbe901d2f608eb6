"""The door to nftables: the `nft` program, one transaction for each call."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio.to_thread

from entrypoint.linux.run import run
from entrypoint.linux.sockets import watch_groups

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
            return ""

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Subscribe to changes of the ruleset."""
        return watch_groups(NETLINK_NETFILTER, [NFNLGRP_NFTABLES])
