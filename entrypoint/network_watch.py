"""Follow changes of the network, and restore what other programs remove."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from functools import partial

import anyio

from entrypoint import desired
from entrypoint.addresses import Address
from entrypoint.desired import DesiredState
from entrypoint.firewall.killswitch import KillSwitch
from entrypoint.health.triggers import Trigger, Triggers
from entrypoint.linux.kernel_objects import LinkUp, Snapshot
from entrypoint.linux.world import Clock, World
from entrypoint.routing.reconcile import Converged, reconcile_once
from entrypoint.routing.uplinks import Uplinks

BURST = 10
EVERY = 5.0
"""Ten repairs at once, then one in five seconds: do not fight another program for the same numbers."""

PAUSE = 0.1
"""Seconds after each look, so that a change of many rules counts as one, with one repair."""

log = logging.getLogger("ss-warp")


class RateLimit:
    """A token bucket: `BURST` at once, then one in `EVERY` seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = float(BURST)
        self._at = clock.monotonic()

    async def pause(self, *, repaired: bool) -> None:
        """Wait until the next look: a moment, or after too many repairs until the next one is due."""
        now = self._clock.monotonic()
        self._left = min(BURST, self._left + (now - self._at) / EVERY) - repaired
        self._at = now
        # In a storm of deletions the rules come back ten times, a tenth of a second apart, then once in 5 s.
        # One look per pause: looking until nothing is missing cost a fifth of a core (0.11 s in 10 s),
        # because listing is the expensive part.
        await self._clock.sleep(max(PAUSE, (1 - self._left) * EVERY if repaired else 0))


def moved(before: Uplinks, now: Uplinks) -> bool:
    """Return whether WireGuard's packets may now leave another way: by a new default route or address.

    One more address beside others changes nothing for them.
    """
    lost = {*before.addresses} - {*now.addresses}
    come_back = {one.version for one in now.listening} - {one.version for one in before.listening}
    return bool(before.defaults != now.defaults or lost or come_back)


class NetworkWatch:
    """The current uplinks; `reconcile` brings kernel and firewall in line with them."""

    def __init__(
        self,
        wanted: DesiredState,
        world: World,
        switch: KillSwitch,
        found: Uplinks,
        triggers: Triggers | None = None,
    ) -> None:
        self.uplinks = found
        self.triggers = triggers or Triggers()
        self.device_generation = 0
        """How often the device was recreated: sockets bound to an older one are dead."""
        self._index: int | None = None
        self._wanted, self._world, self._switch = wanted, world, switch
        self._lock = anyio.Lock()
        self._changed = anyio.Event()

    def adopt(self, wanted: DesiredState) -> None:
        """Keep this state from now on."""
        self._wanted = wanted

    async def reconcile(self) -> Converged:
        """Restore what is missing, and follow what is new. Raises OSError."""
        async with self._lock:
            snapshot = await self._world.netlink.snapshot()
            found = self._wanted.look(snapshot)
            # No uplink at all is a cable that was unplugged: keep the policy, it comes back.
            if found != self.uplinks and found.links:
                await self._follow(found)
            # Once: its own changes are events, so another look follows; listing is most of the cost.
            done = await reconcile_once(self._wanted.plan(self.uplinks), self._world.netlink, snapshot)
            if done.missing:
                self.triggers.fire(Trigger.GONE)
            self._compare_device(snapshot)
            return done

    def _compare_device(self, snapshot: Snapshot) -> None:
        for link in snapshot.links:
            # Without a carrier its route is none where ignore_routes_with_linkdown is set, as FRR does.
            if link.name == self._wanted.ids.null_device and link.kind == "tun":
                self._world.netlink.hold(link)
            if link.name == self._wanted.ids.device and link.index != self._index:
                self.device_generation += self._index is not None
                self._index = link.index
                self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _follow(self, found: Uplinks) -> None:
        # The firewall first: a new address must be covered before a route uses it.
        await self._switch.set(self._wanted.policy(found))
        before, self.uplinks = self.uplinks, found
        self._tell()
        self.say_occupied(found, before)
        if moved(before, found):
            log.info("uplink changed: %s", ", ".join(map(str, found.addresses)) or "no address")
            self.triggers.fire(Trigger.UPLINK)

    def say_occupied(self, found: Uplinks, before: Uplinks | None = None) -> None:
        """Say once that the tunnel's address is taken here, and what that means."""
        if found.occupied and (before is None or found.occupied != before.occupied):
            taken = ", ".join(map(str, found.occupied))
            device = self._wanted.ids.device
            log.warning("%s, the tunnel's address, is in use here; translating it on %s", taken, device)

    def close_older(self) -> None:
        """Close outgoing connections older than the firewall, which would take them for replies."""
        if desired.route_mode(self._wanted.settings) == "full" and self._wanted.settings.firewall.on:
            try:
                allowed = partial(self._wanted.may_go_on, self.uplinks)
                if closed := self._world.netlink.close_outgoing(allowed):
                    log.info("closed %d outgoing connections that began outside the tunnel", closed)
            except OSError as error:
                log.warning("cannot close outgoing connections that are older than the firewall: %s", error)

    async def outdated(self, known: Collection[Address], device_generation: int) -> None:
        """Wait for a new address to listen on, or for another device."""
        await self.changed(
            lambda: (
                not set(self.uplinks.listening) <= set(known) or self.device_generation != device_generation
            )
        )

    async def changed(self, look: Callable[[], bool]) -> None:
        """Wait until `look` is true; call it now and after each change."""
        while not look():
            await self._changed.wait()

    async def watch_network(self) -> None:
        """Reconcile after every burst of changes to links, addresses, routes or rules, forever."""

        async def look() -> bool:
            before = self.uplinks
            try:
                done = await self.reconcile()
            except OSError as error:
                raise OSError(f"cannot restore the network: {error.strerror or error}") from error
            # An engine sets the MTU when it starts: not worth a line.
            lost = [item for item in done.added if not isinstance(item, LinkUp)]
            if lost and self.uplinks == before:
                restored = "; ".join(item.command("add") for item in lost)
                log.warning("restored network configuration that was removed externally: %s", restored)
            return bool(lost or done.removed)

        await self._watch(self._world.netlink.changes(), look)

    async def watch_firewall(self) -> None:
        """Load our nftables tables again after another program flushed or changed them, forever."""

        async def look() -> bool:
            if await self._switch.intact():
                return False
            log.warning("nftables tables were modified externally; restored")
            await self._switch.restore()
            self.close_older()
            return True

        # By netlink group, not by clock: a flushed table is back after some 50 ms, and an idle supervisor
        # never wakes up for it.
        await self._watch(self._world.nft.changes(), look)

    async def _watch(
        self,
        subscription: AbstractAsyncContextManager[AsyncIterator[None]],
        look: Callable[[], Awaitable[bool]],
    ) -> None:
        """Look now and after every change; `look` returns whether it had to repair anything."""
        limit = RateLimit(self._world.clock)
        async with subscription as changes:
            while True:
                try:
                    repaired = await look()
                except OSError as error:
                    log.warning("%s", error)
                    await self._world.clock.sleep(EVERY)  # no event says when it is possible again
                    continue
                await limit.pause(repaired=repaired)
                await anext(changes)
