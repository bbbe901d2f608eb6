"""Bring the kernel to the plan: list, compare, add, then remove."""

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from entrypoint.errors import explain
from entrypoint.linux.kernel_objects import PROTOCOL_KERNEL, Item, Link, LinkState, LinkUp, Snapshot
from entrypoint.linux.world import Netlink
from entrypoint.routing.plan import NetworkPlan, OurIds, add_order, ours_in
from entrypoint.unwind import UnwindStack

ROUNDS = 4
"""One to converge, one to verify, the rest for changes that other programs make meanwhile."""

# What the kernel answers when someone else was faster.
GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL})
NOT_NOW = frozenset({errno.EEXIST, errno.ENODEV, errno.ENETDOWN})
"""Another program added it, or its device is gone or down: the next listing shows."""


@dataclass(frozen=True, slots=True)
class Converged:
    """What changed. `missing` could not be added: the device is gone, or another program removes it."""

    added: tuple[Item, ...] = ()
    removed: tuple[Item, ...] = ()
    missing: tuple[Item, ...] = ()


def difference(plan: NetworkPlan, snapshot: Snapshot) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Return what to add and what to remove, each in its order.

    What carries the plan's ids and is not in it is removed, and so is a copy of one of our rules under
    another protocol, which is a different rule to the kernel.
    """
    wanted = {_identity(item) for item in plan.items}
    there = list(ours_in(snapshot, plan.ids))
    add = [item for item in plan.items if not _is_there(item, there)]
    remove = [item for item in there if _identity(item) not in wanted]
    remove += [
        rule
        for rule in snapshot.rules
        if rule.protocol != PROTOCOL_KERNEL and replace(rule, protocol=PROTOCOL_KERNEL) in wanted
    ]
    return tuple(add), tuple(reversed(sorted(remove, key=lambda item: add_order(item, plan.ids))))


def _identity(item: Item) -> Item:
    """Return what identifies the item: a wrong MTU is corrected without taking the device down."""
    return LinkUp(item.name) if isinstance(item, LinkUp) else item


def _is_there(item: Item, there: list[Item]) -> bool:
    if isinstance(item, LinkUp) and item.mtu is None:
        return any(isinstance(other, LinkUp) and other.name == item.name for other in there)
    return item in there


async def reconcile_once(plan: NetworkPlan, netlink: Netlink, snapshot: Snapshot) -> Converged:
    """Add what this listing lacks and remove what it has too much. Raises OSError, except for races.

    What needs a missing device is left out and reported: call again after the device was recreated.
    """
    # List, compare, add, remove. Never "add and ignore EEXIST": the same rule with another protocol is a
    # duplicate to the kernel, and a stale one would stay.
    missing, surplus = difference(plan, snapshot)
    # Adding comes first, so that no packet finds a gap between the old rule and the new one.
    added = [item for item in missing if await tolerate(netlink.add, item, NOT_NOW)]
    removed = [item for item in surplus if await tolerate(netlink.remove, item, GONE)]
    return Converged(tuple(added), tuple(removed), tuple(item for item in missing if item not in added))


async def converge(plan: NetworkPlan, netlink: Netlink) -> Converged:
    """Correct until a listing matches the plan. Raises OSError, except for races."""
    added: list[Item] = []
    removed: list[Item] = []
    missing: tuple[Item, ...] = ()
    for _ in range(ROUNDS):
        now = await reconcile_once(plan, netlink, await netlink.snapshot(table=plan.ids.table))
        missing = (*now.missing, *now.added)  # no listing has confirmed what was just added
        if not now.added and not now.removed:
            break
        added += now.added
        removed += now.removed
    return Converged(tuple(added), tuple(removed), missing)


async def remove_all(ids: OurIds, netlink: Netlink, known: Sequence[Item] = ()) -> None:
    """Remove everything that carries `ids`, except the device itself.

    A failure does not keep the rest from being removed; the first OSError is raised at the end.
    """
    refused: list[OSError] = []
    for _ in range(ROUNDS):
        # Again from a fresh listing: other programs add and delete meanwhile.
        refused.clear()
        try:
            _, surplus = difference(NetworkPlan(ids, ()), await netlink.snapshot(table=ids.table))
        except OSError:
            if not known:
                raise
            surplus = tuple(reversed(known))  # one by one, as the kernel says what is gone
        for item in surplus:
            try:
                await tolerate(netlink.remove, item, GONE)
            except OSError as error:
                refused.append(error)
        if len(refused) == len(surplus):
            break
    if refused:
        raise refused[0]


async def tolerate(
    operation: Callable[[Item], Awaitable[None]], item: Item, accepted: frozenset[int]
) -> bool:
    """Return False if the kernel answers one of `accepted`; name the item in any other OSError."""
    try:
        await operation(item)
    except OSError as error:
        if error.errno in accepted:
            return False
        raise OSError(error.errno, f"{item.command('add')}: {error.strerror}") from error
    return True


@asynccontextmanager
async def apply(plan: NetworkPlan, netlink: Netlink) -> AsyncIterator[Converged]:
    """Apply the plan while inside; on leaving remove everything that carries its ids.

    That includes what later plans with the same ids added. Raises PlatformError.
    """
    async with UnwindStack() as stack:
        stack.undo("rules and routes", partial(remove_all, plan.ids, netlink, plan.items))
        try:
            converged = await converge(plan, netlink)
        except OSError as error:
            raise explain("cannot set up routing", error) from error
        yield converged


async def list_all(netlink: Netlink, *, table: int = 0) -> Snapshot:
    """List everything, or of the routes this table's alone. Raises PlatformError."""
    try:
        return await netlink.snapshot(table=table)
    except OSError as error:
        raise explain("cannot list links, addresses, routes and rules", error) from error


async def delete_link(netlink: Netlink, name: str) -> None:
    """Delete one of our links, which ends its engine; accept that another program deletes it meanwhile."""
    try:
        match await netlink.link(name):
            # A device of this name but of another kind was not made by ss-warp.
            case LinkState(kind="tun" | "wireguard" as kind):
                await netlink.remove(Link(name, kind))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
