"""An account's life, start by start: there is one, it is what the user wants, and one day it leaves."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from entrypoint.account.api import WarpApi
from entrypoint.account.model import Access, Account, kind_of, new_private_key, parse_account, public_key
from entrypoint.account.registration import (
    OnWait,
    Team,
    imported_account,
    new_device,
    register_until_done,
    team_device,
)
from entrypoint.account.replies import ApiError
from entrypoint.account.store import PendingRegistration, StoredAccount, edit, load, read, write
from entrypoint.account.strict_json import InvalidError, JsonValue
from entrypoint.addresses import Address
from entrypoint.errors import Error
from entrypoint.linux import state_dir
from entrypoint.linux.state_dir import ACCOUNT_FILE
from entrypoint.linux.world import Clock

GONE: Final = (401, 403, 404, 410)
"""Statuses for a device that the API does not know (warp-api 1.9); 403 is also a blocked address."""

ONE_DAY: Final = 86400.0
"""Seconds that an account must be old before another may take its place without a person's word."""

log = logging.getLogger("ss-warp")


@dataclass(frozen=True, slots=True)
class AccountWishes:
    """What the settings want of the account."""

    device_name: str
    license_key: str | None = field(default=None, repr=False)
    import_file: Path | None = None
    team: Team | None = None


async def load_or_register(
    directory: Path,
    api: WarpApi,
    clock: Clock,
    *,
    own: Collection[Address],
    wishes: AccountWishes,
    waiting: OnWait,
) -> StoredAccount:
    """Return the account kept in `directory`, as wanted; register when there is none.

    The caller holds `files.locked(directory)`. A kept account that nobody wants changed costs no call.
    `own` are this machine's addresses, without those of our own tunnel device: the API may not name
    them. Raises ApiError when the API refuses or sends an account that cannot be used, StateError when
    the file is not an account (it is kept aside; nothing is registered), BusyError when the disk is
    full (before registering).
    """
    path = directory / ACCOUNT_FILE
    kept = load(path, clock.wall())
    if isinstance(kept, StoredAccount) and kept.leaving and await unregister(path, kept, api):
        kept = None
    if isinstance(kept, StoredAccount):
        if wishes.team and kept.account.kind != "team":
            log.warning(
                "a %s account is kept, so no device is enrolled: to change that, `ss-warp account delete` "
                "and start anew",
                kept.account.kind,
            )
        kept = await rotate_key(path, kept, api, own=own)
        return await bind_licence(path, kept, wishes.license_key, api, clock, own=own)
    if wishes.import_file:
        attempt = imported_account(api, clock, own, wishes.import_file)
    elif wishes.team:
        attempt = team_device(api, clock, own, wishes.device_name, wishes.team)
    else:
        attempt = new_device(api, clock, own, wishes.device_name)
    license_key = kept.license_key if kept else None
    kept = StoredAccount(
        await register_until_done(path, kept, api, clock, attempt, waiting), license_key=license_key
    )
    try:
        write(path, kept)
    except Error as error:
        # Registered is registered: better an account until the next start than none at all.
        log.warning("the new account cannot be kept, the next start will register another: %s", error)
    return await bind_licence(path, kept, wishes.license_key, api, clock, own=own, waiting=waiting)


async def apply_pending(
    directory: Path, kept: StoredAccount, api: WarpApi, clock: Clock, wished: str | None
) -> StoredAccount | None:
    """Do at once what a command left to do; return what is kept then, None when the account is gone.

    The caller holds `files.locked(directory)`.
    """
    path = directory / ACCOUNT_FILE
    if kept.leaving:
        return None if await unregister(path, kept, api) else kept
    kept = await rotate_key(path, kept, api, own=())
    return await bind_licence(path, kept, wished, api, clock, own=())


async def unregister(path: Path, kept: StoredAccount, api: WarpApi) -> bool:
    """Unregister the device and forget the account; say whether that worked. Raises StateError."""
    access = kept.account.access
    try:
        if access:
            await api.unregister(access)
    except ApiError as error:
        if not error.gone:
            log.warning("the device is not unregistered: %s", error)
            return False
    state_dir.remove(path)
    log.info("the device is unregistered, its account is removed" if access else "the account is removed")
    return True


async def recheck(path: Path, api: WarpApi, clock: Clock, *, own: Collection[Address]) -> str | None:
    """Ask the API about an account whose tunnel is dead, and write down what it says.

    Returns why the account is none any more: another has to be registered; an empty text when it is
    another now; None when it is as it was, or when that cannot be known. Raises StateError, BusyError.
    """
    kept = read(path)
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
        now = reread(account, device, own)
    except InvalidError as error:
        log.warning("the API's answer cannot be used: %s", error)
        return None
    except ApiError as error:
        # One more call tells a device that is gone from an API, or a way to it, that is broken.
        if error.status not in GONE or not await api.answers():
            log.warning("whether the account is still good is not known: %s", error)
            return None
        return _replace_account(path, kept, api, clock, error)
    save_change(path, kept, account=now)
    return None if replace(now, kind=account.kind, license_key=account.license_key) == account else ""


def _replace_account(
    path: Path, kept: StoredAccount, api: WarpApi, clock: Clock, error: ApiError
) -> str | None:
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
    write(path, PendingRegistration(new_private_key(), api.base_url, license_key=license_key))
    return error.message


TOO_MANY_DEVICES: Final = 1056
"""Cloudflare's code for a licence that is on five devices already."""

LICENCE_WAIT: Final = 120.0
"""Seconds at most that a new device waits for its licence: once connected as free, it would stay so."""

log = logging.getLogger("ss-warp")


async def bind_licence(
    path: Path,
    kept: StoredAccount,
    wished: str | None,
    api: WarpApi,
    clock: Clock,
    *,
    own: Collection[Address],
    waiting: OnWait | None = None,
) -> StoredAccount:
    """Bind the licence key that is `wished` (the setting), else the command's; return what is kept then.

    No call when it is bound already. `waiting` is given for a device that has never connected.
    """
    key, account, access = wished or kept.license_key, kept.account, kept.account.access
    if not key or key == account.license_key:
        return kept
    if access is None:
        log.warning("the licence key is not used: an imported profile has no token to bind it with")
        return kept
    if account.kind == "team":
        log.warning("the licence key is not used: a Zero Trust account has no licence")
        return kept
    if error := await _try_to_bind(access, key, api, clock, waiting):
        words, hopeless = _explain_refusal(error)
        log.warning("the licence key %s; the account stays %s: %s", words, account.kind, error)
        # A command's key that never can be bound is not tried for ever; a setting is the user's to change.
        return save_change(path, kept, license_key=None) if hopeless and kept.license_key == key else kept
    account = replace(account, license_key=key)
    try:
        device = await api.device(access)
        account = replace(reread(account, device, own), license_key=key)
    except (ApiError, InvalidError) as unread:
        log.warning("the licence key is bound, but the account cannot be read again: %s", unread)
    if account.kind == "plus":
        log.info("the licence key is bound: this is a WARP+ account")
    else:
        log.warning("the licence key was accepted, but the account is still %s", account.kind)
    return save_change(path, kept, account=account, license_key=None)


async def check_licence(path: Path, kept: StoredAccount, wished: str | None, api: WarpApi) -> StoredAccount:
    """Ask whether a bound licence is honoured; one call, and none for other accounts.

    It may have been revoked, and a fresh one may take a moment to show (wgcf's issue 30).
    """
    account = kept.account
    bound = account.kind == "plus" or (wished is not None and account.license_key == wished)
    if account.access is None or not bound:
        return kept
    try:
        kind = kind_of(await api.device(account.access))
    except (ApiError, InvalidError) as error:
        log.debug("the account cannot be read: %s", error)
        return kept
    if kind == account.kind:
        return kept
    if kind == "plus":
        log.info("the licence key is in force: this is a WARP+ account")
    else:
        log.warning("the licence key is not honoured any more (revoked, or used elsewhere): free tier")
    return save_change(path, kept, account=replace(account, kind=kind))


def reread(account: Account, device: JsonValue, own: Collection[Address]) -> Account:
    """Return the account as a later answer shows it; key, token and age stay. Raises InvalidError."""
    return parse_account(
        device,
        private_key=account.private_key,
        created=account.created,
        own=own,
        token=account.access.token if account.access else None,
    )


def save_change(path: Path, kept: StoredAccount, **changes: object) -> StoredAccount:
    """Return `kept` with these changes, on the volume too where that works: it is used all the same."""
    try:
        return edit(path, lambda there: replace(there, **changes))  # type: ignore[arg-type]
    except Error as error:
        log.warning("the account's change cannot be kept: %s", error)
        return replace(kept, **changes)  # type: ignore[arg-type]


async def _try_to_bind(
    access: Access, key: str, api: WarpApi, clock: Clock, waiting: OnWait | None
) -> ApiError | None:
    """Try, and a second time before a device's first handshake; return why it did not work."""
    for last in (waiting is None, True):
        try:
            await api.bind(access, key)
        except ApiError as error:
            if last or waiting is None or error.again is None or error.again > LICENCE_WAIT:
                return error
            pause = max(error.again, 1.0)
            waiting(f"the licence key is not bound yet: {error}", pause)
            await clock.sleep(pause)
        else:
            break
    return None


def _explain_refusal(error: ApiError) -> tuple[str, bool]:
    """Return what a failure says of the key, and whether that stays so."""
    if error.code == TOO_MANY_DEVICES:
        return "is full (it is on 5 devices: remove one in the app)", False
    if error.gone:
        return "cannot be bound: the API does not know this device any more", False
    if error.status == 400:
        return "is not valid (only keys bought in the app are, see its account screen)", True
    return "cannot be bound now, the next start tries again", False


log = logging.getLogger("ss-warp")


async def rotate_key(
    path: Path, kept: StoredAccount, api: WarpApi, *, own: Collection[Address]
) -> StoredAccount:
    """Bring a rotation to its end; a `next_private_key` that is still there may or may not be in force."""
    account, key = kept.account, kept.next_private_key
    if key is None:
        return kept
    if account.access is None:
        log.warning("the key is not changed: an imported profile has no token to change it with")
        return save_change(path, kept, next_private_key=None)
    failure: ApiError | None = None
    device: JsonValue | None = None
    try:
        device = await api.rekey(account.access, public_key(key))
    except ApiError as error:
        failure = error
    try:
        device = device or await api.device(account.access)
        now = _match_key(device, account, key, own)
    except (ApiError, InvalidError) as unread:
        log.warning("whether the key was changed is not known, both are tried: %s", failure or unread)
        return kept
    if now.private_key == key:
        log.info("the key is changed: %s", public_key(key))
    else:
        log.warning("the key is not changed: %s", failure or "the API still shows the old one")
    return save_change(path, kept, account=now, next_private_key=None)


def settle_key(path: Path, kept: StoredAccount, private_key: str) -> StoredAccount:
    """Return what is kept once `private_key` has proved to be the one in force: the other is removed."""
    if kept.next_private_key is None:
        return kept
    changed = private_key == kept.next_private_key
    log.warning("the %s key is in force, the other is removed", "new" if changed else "old")
    account = replace(kept.account, private_key=private_key)
    return save_change(path, kept, account=account, next_private_key=None)


def _match_key(device: JsonValue, account: Account, key: str, own: Collection[Address]) -> Account:
    shown = device.at("key").text()
    mine = next((mine for mine in (key, account.private_key) if shown == public_key(mine)), None)
    if mine is None:
        device.at("key").refuse("neither the old key nor the new one")
    return reread(replace(account, private_key=mine), device, own)
