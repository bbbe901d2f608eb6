"""An account's life, start by start: there is one, it is what the user wants, and one day it leaves."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from entrypoint import files
from entrypoint.errors import Error
from entrypoint.network.plan import Address
from entrypoint.ports import Clock
from entrypoint.warp.account import new_private_key, public_key
from entrypoint.warp.api import WarpApi
from entrypoint.warp.fields import InvalidError
from entrypoint.warp.licence import again, keep, licensed
from entrypoint.warp.registration import Waiting, importing, obtained, registering
from entrypoint.warp.replies import ApiError
from entrypoint.warp.rotation import rotated
from entrypoint.warp.store import FILE, Kept, Pending, load, look, write
from entrypoint.warp.team import Team, enrolling

GONE: Final = (401, 403, 404, 410)
"""Statuses for a device that the API does not know (warp-api 1.9); 403 is also a blocked address."""

ONE_DAY: Final = 86400.0
"""Seconds that an account must be old before another may take its place without a person's word."""

log = logging.getLogger("ss-warp")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the settings want of the account."""

    device_name: str
    license_key: str | None = field(default=None, repr=False)
    import_file: Path | None = None
    team: Team | None = None


async def ready(
    directory: Path, api: WarpApi, clock: Clock, *, own: Collection[Address], wishes: Wishes, waiting: Waiting
) -> Kept:
    """Return the account kept in `directory`, as wanted; register when there is none.

    The caller holds `files.locked(directory)`. A kept account that nobody wants changed costs no call.
    `own` are this machine's addresses, without those of our own tunnel device: the API may not name
    them. Raises ApiError when the API refuses or sends an account that cannot be used, StateError when
    the file is not an account (it is kept aside; nothing is registered), BusyError when the disk is
    full (before registering).
    """
    path = directory / FILE
    kept = load(path, clock.wall())
    if isinstance(kept, Kept) and kept.leaving and await left(path, kept, api):
        kept = None
    if isinstance(kept, Kept):
        if wishes.team and kept.account.kind != "team":
            log.warning(
                "a %s account is kept, so no device is enrolled: to change that, `ss-warp account delete` "
                "and start anew",
                kept.account.kind,
            )
        kept = await rotated(path, kept, api, own=own)
        return await licensed(path, kept, wishes.license_key, api, clock, own=own)
    if wishes.import_file:
        attempt = importing(api, clock, own, wishes.import_file)
    elif wishes.team:
        attempt = enrolling(api, clock, own, wishes.device_name, wishes.team)
    else:
        attempt = registering(api, clock, own, wishes.device_name)
    license_key = kept.license_key if kept else None
    kept = Kept(await obtained(path, kept, api, clock, attempt, waiting), license_key=license_key)
    try:
        write(path, kept)
    except Error as error:
        # Registered is registered: better an account until the next start than none at all.
        log.warning("the new account cannot be kept, the next start will register another: %s", error)
    return await licensed(path, kept, wishes.license_key, api, clock, own=own, waiting=waiting)


async def changed(directory: Path, kept: Kept, api: WarpApi, clock: Clock, wished: str | None) -> Kept | None:
    """Do at once what a command left to do; return what is kept then, None when the account is gone.

    The caller holds `files.locked(directory)`.
    """
    path = directory / FILE
    if kept.leaving:
        return None if await left(path, kept, api) else kept
    kept = await rotated(path, kept, api, own=())
    return await licensed(path, kept, wished, api, clock, own=())


async def left(path: Path, kept: Kept, api: WarpApi) -> bool:
    """Unregister the device and forget the account; say whether that worked. Raises StateError."""
    access = kept.account.access
    try:
        if access:
            await api.unregister(access)
    except ApiError as error:
        if not error.gone:
            log.warning("the device is not unregistered: %s", error)
            return False
    files.remove(path)
    log.info("the device is unregistered, its account is removed" if access else "the account is removed")
    return True


async def doubted(path: Path, api: WarpApi, clock: Clock, *, own: Collection[Address]) -> str | None:
    """Ask the API about an account whose tunnel is dead, and write down what it says.

    Returns why the account is none any more: another has to be registered; an empty text when it is
    another now; None when it is as it was, or when that cannot be known. Raises StateError, BusyError.
    """
    kept = look(path)
    account, access = kept.account, kept.account.access
    if access is None:
        return None
    try:
        device = await api.device(access)
        shown = device.at("key").text()
        if shown not in [public_key(key) for key in (account.private_key, kept.next_private_key) if key]:
            log.warning(
                "the device has another key now: somebody changed it; `ss-warp account rotate-key` and a "
                "restart take it back"
            )
            return None
        now = again(account, device, own)
    except InvalidError as error:
        log.warning("the API's answer cannot be used: %s", error)
        return None
    except ApiError as error:
        # One more call tells a device that is gone from an API, or a way to it, that is broken.
        if error.status not in GONE or not await api.answers():
            log.warning("whether the account is still good is not known: %s", error)
            return None
        return _gone(path, kept, api, clock, error)
    keep(path, kept, account=now)
    return None if replace(now, kind=account.kind, license_key=account.license_key) == account else ""


def _gone(path: Path, kept: Kept, api: WarpApi, clock: Clock, error: ApiError) -> str | None:
    """Make room for a new account where one may be registered unasked; return why, None where not."""
    account = kept.account
    young = clock.wall() - account.created.timestamp() < ONE_DAY
    if account.kind not in ("free", "plus") or young:
        log.error(
            "the API does not know this device any more (%s), and %s: to start anew, "
            "`ss-warp account delete` and restart",
            error.message,
            "an account is replaced once a day at most" if young else f"it is a {account.kind} account",
        )
        return None
    license_key = account.license_key if account.kind == "plus" else None
    write(path, Pending(new_private_key(), api.base_url, license_key=license_key))
    return error.message
