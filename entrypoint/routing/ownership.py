"""Record which priorities, tables and interfaces are ours (network.json); never touch anyone else's."""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from entrypoint.errors import BusyError, SettingsError, StateError, explain
from entrypoint.firewall.ruleset import TABLES
from entrypoint.linux import state_dir
from entrypoint.linux.kernel_objects import PROTOCOL_KERNEL, SSSERVER_UID, Link, LinkState, Rule, Snapshot
from entrypoint.linux.world import Netlink, Nft
from entrypoint.routing.plan import TUNNEL_PRIORITY, OurIds, RouteMode, decode, encode, ours_in
from entrypoint.routing.reconcile import GONE, list_all, remove_all, tolerate
from entrypoint.unwind import UnwindStack

type IdKind = Literal["priority", "table", "device", "other"]

LOWEST_PRIORITY = 3
MAX_TRIES = 100
"""How many other tables and interface names to try."""

STRANGER = (
    f"user {SSSERVER_UID}: another program has sockets as this user, which is ssserver's; "
    "its packets would be treated as ssserver's: run it as another user"
)

log = logging.getLogger("ss-warp")


@asynccontextmanager
async def claim(
    ids: OurIds,
    netlink: Netlink,
    recorded: bytes | None,
    record: Callable[[bytes], None],
    *,
    mode: RouteMode = "full",
    nft: Nft | None = None,
) -> AsyncIterator[None]:
    """Own `ids` while inside; enter before opening the device or changing anything.

    `recorded` is the content of network.json, `record` replaces it. Leftovers of a predecessor with
    other ids are removed. With `nft` the names of our tables must be free or recorded, too. Raises
    SettingsError if another program owns one of them, StateError, PlatformError.
    """
    before = decode(recorded)
    snapshot = await list_all(netlink, table=ids.table)
    problems = [sentence for _, sentence in conflicts(ids, before, snapshot, mode)]
    if SSSERVER_UID in netlink.socket_users():
        if nft:
            problems.append(STRANGER)
        else:  # whoever joined our own namespace gets less than before, never more
            log.warning("%s", STRANGER)
    # A table that is not on record may be another ss-warp's. In its own namespace it is a predecessor's, and
    # is adopted.
    if not before:
        problems += [
            f"the nftables table {table} exists and is not on record as ours: is another ss-warp running? "
            f"If not: nft delete table {table}"
            for table in await _our_tables(nft)
        ]
    if problems:
        raise SettingsError(problems)
    async with UnwindStack() as stack:
        ours = tuple(dict.fromkeys((*before, ids)))
        stack.undo("network.json", partial(_forget, ours, netlink, nft, record))
        # Both sets, until the old one is gone: a kill in between must not make leftovers look like another
        # program's.
        record(encode(ours))
        try:
            for old in before:
                if old != ids:
                    await remove_all(old, netlink)
                    await _delete_link(old.device, snapshot, netlink)
        except OSError as error:
            raise explain("cannot remove leftovers of an earlier start", error) from error
        record(encode([ids]))
        yield


def saver(path: Path, *, must: bool) -> Callable[[bytes], None]:
    """Return a function that saves network.json at `path`; unless `must`, a bad volume is no reason to stop.

    It must be saved on a host, where leftovers would look like another program's, and before the first
    account.
    """

    def record(data: bytes) -> None:
        try:
            state_dir.replace(path, data)
        except (StateError, BusyError) as error:
            if must:
                raise
            log.warning("cannot write to the state volume, continuing with the values in memory: %s", error)

    return record


def choose_free(
    wish: OurIds, fixed: Iterable[IdKind], before: tuple[OurIds, ...], snapshot: Snapshot, mode: RouteMode
) -> OurIds:
    """Return `wish`, with free ids for those that other programs use, except what is `fixed`.

    If nothing is free the id stays as wished, and `claim` refuses it.
    """
    stem = wish.device.rstrip("0123456789")
    others: dict[IdKind, Iterator[dict[str, int | str]]] = {
        # Priorities move down, tables and device names up; the tunnel's priority and the mark never move,
        # because another program that has those wants the same packets.
        "priority": ({"priority": number} for number in range(wish.priority - 1, LOWEST_PRIORITY - 1, -1)),
        "table": ({"table": wish.table + number} for number in range(1, MAX_TRIES)),
        "device": ({"device": f"{stem}{number}"} for number in range(MAX_TRIES)),
    }
    found = wish
    for field, choices in others.items():
        if field not in fixed and field in _conflicting(wish, before, snapshot, mode):
            tries = (replace(found, **choice) for choice in choices)  # type: ignore[arg-type]
            found = next(
                (one for one in tries if field not in _conflicting(one, before, snapshot, mode)), found
            )
    return found


def _conflicting(ids: OurIds, before: tuple[OurIds, ...], snapshot: Snapshot, mode: RouteMode) -> set[IdKind]:
    return {field for field, _ in conflicts(ids, before, snapshot, mode)}


def conflicts(
    ids: OurIds, before: tuple[OurIds, ...], snapshot: Snapshot, mode: RouteMode = "full"
) -> Iterator[tuple[IdKind, str]]:
    """Yield a sentence for each id that another program uses; what `before` lists is ours."""
    ours = {priority for old in before for priority in old.priorities}
    used = ids.priorities if mode == "full" else ids.priorities[2:5]
    for rule in snapshot.rules:
        if rule.priority in ours:
            continue
        theirs = f"another program added {rule.command('add')!r}"
        if rule.priority in used or (rule.priority in ids.priorities and rule.protocol == PROTOCOL_KERNEL):
            if rule.priority == TUNNEL_PRIORITY and rule.source and rule.protocol != PROTOCOL_KERNEL:
                continue  # `ip rule add from A` without a number lands there; it matches only its own packets
            if rule.priority == TUNNEL_PRIORITY:
                yield "other", f"priority {TUNNEL_PRIORITY}: {theirs}; remove it, or set ROUTE_MODE=proxy"
            else:
                yield "priority", f"ROUTE_RULE_PRIORITY={ids.priority}: {theirs}; choose another"
        if rule.uid == SSSERVER_UID and rule.protocol != PROTOCOL_KERNEL:
            yield "other", f"user {SSSERVER_UID}: {theirs}; it would lead ssserver's packets: remove it"
        if _same_mark(rule, ids):
            yield "other", f"mark {ids.mark}: {theirs}; remove it"
    if ids.table not in {old.table for old in before} and any(
        route.table == ids.table for route in snapshot.routes
    ):
        yield ("table", f"ROUTE_TABLE={ids.table}: the table is already in use; choose another")
    for name in sorted(ids.links - {name for old in before for name in old.links}):
        if any(link.name == name for link in snapshot.links):
            yield (
                "device" if name == ids.device else "other",
                f"WIREGUARD_INTERFACE: another program owns an interface {name}: remove it or choose another",
            )


def _same_mark(rule: Rule, ids: OurIds) -> bool:
    """Return whether the rule would match our packets, or our rule theirs."""
    # Compared under both masks: one common bit is enough for a packet to match both rules.
    if not rule.mark or rule.more or not rule.mark.value & rule.mark.mask:
        return False
    ours = ids.mark
    return ours.value & rule.mark.mask == rule.mark.value or rule.mark.value & ours.mask == ours.value


async def _our_tables(nft: Nft | None) -> list[str]:
    try:
        return [table for table in TABLES if nft and await nft.listing(*table.split())]
    except OSError as error:
        raise explain("cannot list nftables", error) from error


async def _forget(
    ours: Sequence[OurIds], netlink: Netlink, nft: Nft | None, record: Callable[[bytes], None]
) -> None:
    """Record only what still exists."""
    # A host's table that stays loaded after a failure keeps its record: without one the next start would
    # refuse it.
    if await _our_tables(nft):
        return
    left = []
    for one in ours:
        snapshot = await netlink.snapshot(table=one.table)
        if one.links & {link.name for link in snapshot.links} or any(ours_in(snapshot, one)):
            left.append(one)
    record(encode(left))


async def _delete_link(name: str, snapshot: Snapshot, netlink: Netlink) -> None:
    for link in snapshot.links:
        match link:
            case LinkState(name=there, kind="tun" | "wireguard" as kind) if there == name:
                await tolerate(netlink.remove, Link(name, kind), GONE)
