"""The network around us changes: rules, routes, listeners and the endpoint's route follow it."""

import logging
from collections.abc import Callable, Collection

import anyio

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
"""Ten repairs at once, then one in five seconds: somebody else may want the same numbers, do not fight."""

RECONCILE_COST = 0.05
"""What a look that finds nothing to repair costs of a repair: most changes are none of our business."""

RECONCILE_PAUSE = 0.1
"""Seconds after each look: what somebody does to many rules is one change, and one repair."""

log = logging.getLogger("ss-warp")


class RateLimit:
    """A token bucket: `BURST` at once, then one in `EVERY` seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = float(BURST)
        self._at = clock.monotonic()

    async def pay(self, cost: float) -> None:
        """Take this off, and wait `PAUSE`, or until there is one left: what comes next may be a repair."""
        now = self._clock.monotonic()
        self._left = min(BURST, self._left + (now - self._at) / EVERY) - cost
        self._at = now
        await self._clock.sleep(max(RECONCILE_PAUSE, (1 - self._left) * EVERY))


def moved(before: Uplinks, now: Uplinks) -> bool:
    """Return whether WireGuard's packets may leave otherwise: a default route or an address in use is new.

    One more address beside others changes nothing for them.
    """
    lost = {*before.addresses} - {*now.addresses}
    come_back = {one.version for one in now.listening} - {one.version for one in before.listening}
    return bool(before.defaults != now.defaults or lost or come_back)


class NetworkWatch:
    """What was found around us, kept current; `settle` makes kernel and firewall fit it."""

    def __init__(self, wanted: DesiredState, world: World, switch: KillSwitch, found: Uplinks) -> None:
        self.uplinks = found
        self.triggers = Triggers()
        self.device_generation = 0
        """How often the device was made anew: sockets bound to an older one are dead."""
        self._index: int | None = None
        self._wanted, self._world, self._switch = wanted, world, switch
        self._lock = anyio.Lock()
        self._changed = anyio.Event()

    async def reconcile(self) -> Converged:
        """Look around, restore what is missing, and follow what is new. Raises OSError."""
        async with self._lock:
            snapshot = await self._world.netlink.snapshot()
            found = self._wanted.look(snapshot)
            if found != self.uplinks and found.links:
                await self._follow(found)
            # Once: what it changes is an event, after which it is looked again; listing is most of the cost.
            done = await reconcile_once(self._wanted.plan(self.uplinks), self._world.netlink, snapshot)
            if done.missing:
                self.triggers.suspect(Trigger.GONE)
            self._compare_device(snapshot)
            return done

    def _compare_device(self, snapshot: Snapshot) -> None:
        for link in snapshot.links:
            if link.name == self._wanted.ids.device and link.index != self._index:
                self.device_generation += self._index is not None
                self._index = link.index
                self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _follow(self, found: Uplinks) -> None:
        await self._switch.set(self._wanted.policy(found))
        before, self.uplinks = self.uplinks, found
        self._tell()
        if moved(before, found):
            log.info("uplink changed: %s", ", ".join(map(str, found.addresses)) or "no address")
            self.triggers.suspect(Trigger.UPLINK)

    async def outdated(self, known: Collection[Address], device_generation: int) -> None:
        """Wait for an address to listen on that is not among the known ones, or for another device."""
        await self.changed(
            lambda: (
                not set(self.uplinks.listening) <= set(known) or self.device_generation != device_generation
            )
        )

    async def changed(self, look: Callable[[], bool]) -> None:
        """Wait until `look` is true; it is asked now and after each change."""
        while not look():
            await self._changed.wait()

    async def watch_network(self) -> None:
        """Settle after every burst of changes that anybody makes, for ever."""
        allowance = RateLimit(self._world.clock)
        async with self._world.netlink.changes() as changes:
            while True:
                before, cost = self.uplinks, 1.0
                try:
                    done = await self.reconcile()
                except OSError as error:
                    log.warning("cannot restore the network: %s", error.strerror or error)
                else:
                    # An engine that starts sets the MTU: no person needs to know of that.
                    lost = [item for item in done.added if not isinstance(item, LinkUp)]
                    if lost and self.uplinks == before:
                        restored = "; ".join(item.command("add") for item in lost)
                        log.warning("somebody removed what we need, it is restored: %s", restored)
                    if not (lost or done.removed):
                        cost = RECONCILE_COST
                await allowance.pay(cost)
                await anext(changes)

    async def watch_firewall(self) -> None:
        """Load our nftables tables again when somebody flushed or changed them, for ever."""
        allowance = RateLimit(self._world.clock)
        async with self._world.nft.changes() as changes:
            while True:
                cost = RECONCILE_COST
                try:
                    if not await self._switch.intact():
                        log.warning("somebody changed our nftables tables: they are restored")
                        await self._switch.restore()
                        cost = 1.0
                except OSError as error:
                    log.warning("%s", error)
                    await self._world.clock.sleep(EVERY)  # nothing will tell when it is possible again
                    continue
                await allowance.pay(cost)
                await anext(changes)
