"""The kill switch in the kernel: policies set atomically, holes only while they are needed."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import anyio

from entrypoint.addresses import Destination
from entrypoint.errors import PlatformError, UndoError
from entrypoint.firewall.policy import Closed, FullTunnel, HostFull, Policy, ProxyTunnel
from entrypoint.firewall.ruleset import TABLES, release, ruleset
from entrypoint.linux.world import Nft
from entrypoint.unwind import UnwindStack

HINT: Final = "add cap_add: [NET_ADMIN]; the kernel needs nf_tables"


CLOSED: Final = Closed()

KEPT: Final = (
    "the firewall stays closed behind this failure: start again, or open it by hand: "
    "nft delete table inet ss_warp; nft delete table arp ss_warp"
)

log = logging.getLogger("ss-warp")


class RefusedError(PlatformError, OSError):
    """nftables refused: an OSError for whoever tries again, a PlatformError for whoever cannot go on."""


class KillSwitch:
    """Our nft tables; with `on=False` they hold at most the reserved bytes."""

    def __init__(self, nft: Nft, *, on: bool) -> None:
        self._nft = nft
        self._on = on
        self._policy: Policy = Closed()
        self._holes: Counter[Destination] = Counter()
        self._listed: list[str] | None = None
        self._lock = anyio.Lock()
        self.lasting = False
        """Whether a failure leaves it loaded (host placement)."""
        self.failed = False

    async def leave(self) -> None:
        """Release it, unless it is to outlast a failure. Raises RefusedError."""
        if self._on and self.lasting and self.failed:
            log.error(KEPT)
        else:
            async with self._lock:
                await _load(self._nft, release())

    @property
    def policy(self) -> Policy:
        """The policy in force, without the holes."""
        return self._policy

    async def set(self, policy: Policy) -> None:
        """Replace everything in one transaction; open holes stay open. Raises RefusedError."""
        async with self._lock:
            self._policy = policy
            await self._load()

    async def restore(self) -> None:
        """Load the policy in force again. Raises RefusedError."""
        async with self._lock:
            await self._load()

    async def intact(self) -> bool:
        """Return whether the tables are as we loaded them. Raises OSError."""
        async with self._lock:
            if not self._on and self._listed is None:
                return True
            return self._listed == await self._listing()

    @asynccontextmanager
    async def hole(self, destinations: Iterable[Destination]) -> AsyncIterator[None]:
        """Let marked packets to `destinations` out while inside; close connections before leaving.

        Raises RefusedError.
        """
        opened = Counter(destinations)
        self._holes += opened
        try:
            await self.restore()
            yield
        finally:
            self._holes -= opened
            with anyio.CancelScope(shield=True):
                await self.restore()

    async def _load(self) -> None:
        text = ruleset(_with_holes(self._policy, frozenset(self._holes)), policed=self._on)
        if not self._on and text == release() and self._listed is None:
            return
        self._listed = None  # a load that is cancelled may still happen
        await _load(self._nft, text)
        listed = await self._listing()
        # What somebody did since then must not become what the tables are compared with.
        if _lines(text) == sum(map(_lines, listed)):
            self._listed = listed

    async def _listing(self) -> list[str]:
        return [await self._nft.listing(*table.split()) for table in TABLES]


def _lines(text: str) -> int:
    """Count chains' lines: nft words rules in its own way, but lists each on one line."""
    return sum(line.startswith("\t") and not line.isspace() for line in text.splitlines())


async def _load(nft: Nft, text: str) -> None:
    try:
        await nft.load(text)
    except OSError as error:
        raise RefusedError(f"cannot load the firewall: {error}", HINT) from error


async def _open(nft: Nft) -> None:
    log.warning("FIREWALL=off: nothing keeps packets from leaving in clear when the tunnel is down")
    await _load(nft, release())


def _with_holes(policy: Policy, holes: frozenset[Destination]) -> Policy:
    match policy:
        case Closed() | FullTunnel() | HostFull():
            return replace(policy, holes=policy.holes | holes)
        case ProxyTunnel():
            return policy  # we ourselves are not policed


@asynccontextmanager
async def kill_switch(nft: Nft, first: Policy = CLOSED, *, on: bool = True) -> AsyncIterator[KillSwitch]:
    """Load `first`; on leaving the namespace, which is our own, is closed, for the next start to adopt.

    With `on=False` (FIREWALL=off) tables of ours are removed and nothing is ever loaded.
    Raises RefusedError.
    """
    switch = KillSwitch(nft, on=on)
    async with UnwindStack() as stack:
        stack.undo("firewall", partial(switch.set, Closed()))
        await (switch.set(first) if on else _open(nft))
        yield switch


@asynccontextmanager
async def host_kill_switch(
    nft: Nft, first: Policy, after_failure: Policy, *, on: bool = True
) -> AsyncIterator[KillSwitch]:
    """Load `first` into the host's namespace; a clean stop releases it, and so does a start that fails.

    Once `KillSwitch.lasting` is set a failure keeps it. Behind that, and behind a predecessor that was
    killed, the next start begins with `after_failure`. Raises RefusedError.
    """
    switch = KillSwitch(nft, on=on)
    async with UnwindStack() as stack:
        stack.undo("firewall", switch.leave)
        if on:
            switch.lasting = any([await nft.listing(*table.split()) for table in TABLES])
            await switch.set(after_failure if switch.lasting else first)
        else:
            await _open(nft)
        try:
            yield switch
        except Exception as error:
            # An undo fails on the way down: then it is a stop that was wanted.
            switch.failed = not isinstance(error, UndoError)
            raise
