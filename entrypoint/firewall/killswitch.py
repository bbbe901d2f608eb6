"""The kill switch in the kernel: apply policies atomically, open holes only while they are needed."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from entrypoint.addresses import Destination
from entrypoint.early.optional import OPTIONAL, attempt, leave_out
from entrypoint.errors import PlatformError, UndoError, explain
from entrypoint.firewall.policy import Closed, FullTunnel, HostFull, Policy, ProxyTunnel
from entrypoint.firewall.ruleset import TABLES, release, ruleset
from entrypoint.linux.world import Nft
from entrypoint.unwind import UnwindStack

STAYS_CLOSED = (
    "the firewall stays closed after this failure. Restart ss-warp, or remove it with: "
    "nft delete table inet ss_warp; nft delete table arp ss_warp"
)

log = logging.getLogger("ss-warp")
CLOSED = Closed()


class RefusedError(PlatformError, OSError):
    """nftables refused the ruleset: an OSError where it is tried again, a PlatformError where it ends us."""


class KillSwitch:
    """Our nft tables; with `on=False` they hold at most the reserved bytes."""

    def __init__(self, nft: Nft, *, on: bool = True) -> None:
        self._nft = nft
        self._on = on
        self._policy: Policy = Closed()
        self._holes: Counter[Destination] = Counter()
        self._listed: list[str] | None = None
        self._lock = anyio.Lock()
        self._armed = False
        self._missing: set[str] = set()

    def arm(self) -> None:
        """From here on a failure leaves a host's kill switch loaded."""
        self._armed = True

    @property
    def armed(self) -> bool:
        """Whether a failure leaves it loaded."""
        return self._on and self._armed

    async def release(self) -> None:
        """Remove our tables. Raises RefusedError."""
        async with self._lock:
            await self._commit(release())

    async def set(self, policy: Policy) -> None:
        """Replace everything in one transaction; open holes stay open. Raises RefusedError."""
        async with self._lock:
            # One line for each policy that differs in words; addresses of holes come and go silently.
            changed, self._policy = str(policy) != str(self._policy), policy
            await self._load()
        if changed and self._on:
            log.debug("firewall: %s", policy)

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
            # A counter, because two callers may hold the same hole open; shielded, because a hole that
            # outlives its connection is a leak.
            self._holes -= opened
            with anyio.CancelScope(shield=True):
                await self.restore()

    async def _load(self) -> None:
        # The whole ruleset in one transaction, so no moment exists in which only half of it holds. The rest
        # of nftables is never flushed: Docker's resolver depends on its own NAT rules.
        text = ruleset(_with_holes(self._policy, frozenset(self._holes)), policed=self._on)
        # FIREWALL=off and nothing loaded: do not touch nftables at all.
        if not self._on and text == release() and self._listed is None:
            return
        self._listed = None  # a load that is cancelled may still happen
        await self._commit(text)
        listed = await self._listing()
        # A change that came since then must not become what the tables are compared with.
        if _lines(leave_out(text, self._missing)) == sum(map(_lines, listed)):
            self._listed = listed

    async def _commit(self, text: str) -> None:
        """Load a transaction, without what this kernel's nftables lacks. Raises RefusedError."""
        try:
            await self._nft.load(leave_out(text, self._missing))
        except TimeoutError as error:
            raise _refused(error) from error
        except OSError as error:
            if self._missing or not await self._find_missing():
                raise _refused(error) from error
            await self._commit(text)

    async def _find_missing(self) -> bool:
        """Find out which optional pieces the kernel lacks, and say what each of them costs."""
        missing = {}
        for piece, tried, lost in OPTIONAL:
            try:
                await self._nft.load(attempt(piece, tried))
            except OSError:
                missing[piece] = lost
        if len(missing) == len(OPTIONAL):
            return False  # nothing works: say what nft says
        for piece, lost in missing.items():
            log.warning("this kernel's nftables has no %s: %s", piece, lost)
        self._missing = set(missing)
        return bool(missing)

    async def _listing(self) -> list[str]:
        return [await self._nft.listing(*table.split()) for table in TABLES]


def _lines(text: str) -> int:
    """Count chains' lines: nft words rules in its own way, but lists each on one line."""
    return sum(line.startswith("\t") and not line.isspace() for line in text.splitlines())


def _refused(error: OSError) -> RefusedError:
    refusal = explain("cannot load the firewall", error, "nft")
    return RefusedError(refusal.message, refusal.hint)


def _with_holes(policy: Policy, holes: frozenset[Destination]) -> Policy:
    match policy:
        case Closed() | FullTunnel() | HostFull():
            return replace(policy, holes=policy.holes | holes)
        case ProxyTunnel():
            # In proxy mode the output chain accepts by default.
            return policy  # ss-warp itself is not restricted


@asynccontextmanager
async def kill_switch(
    nft: Nft, first: Policy = CLOSED, *, after_failure: Policy | None = None, on: bool = True
) -> AsyncIterator[KillSwitch]:
    """Load `first`, and say with what the namespace is left.

    Our own namespace is left closed, for the next start to adopt. A host, which says so by
    `after_failure`, is released by a clean stop and by a start that fails; once `KillSwitch.arm` was
    called a failure leaves it closed. After that, and after a kill, the next start begins with
    `after_failure`. With `on=False` (FIREWALL=off) our tables are removed and nothing is ever loaded.
    Raises RefusedError.
    """
    switch = KillSwitch(nft, on=on)
    failed = False

    async def leave() -> None:
        if after_failure is None:
            # In its own namespace the firewall is never released: it dies with the namespace, and neighbours
            # may live on.
            await switch.set(CLOSED)
        # A failure is not a wish to leave unencrypted. Only a clean stop, or a start that never came up,
        # opens the host.
        elif failed and switch.armed:
            log.error(STAYS_CLOSED)
        else:
            await switch.release()

    async with UnwindStack() as stack:
        stack.undo("firewall", leave)
        if not on:
            log.warning("FIREWALL=off: traffic leaves unencrypted whenever the tunnel is down")
            await switch.release()
        elif after_failure and any([await nft.listing(*table.split()) for table in TABLES]):
            # Tables of a killed predecessor count as a promise that was made: the next start stays closed
            # until the tunnel is back.
            switch.arm()
            await switch.set(after_failure)
        else:
            await switch.set(first)
        try:
            yield switch
        except Exception as error:
            # An undo fails on the way down: then it is a stop that was wanted.
            failed = not isinstance(error, UndoError)
            raise
