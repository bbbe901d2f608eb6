"""Account lifecycle: create it, keep it in line with the settings, unregister it."""

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from entrypoint.account import store
from entrypoint.account.api import WarpApi
from entrypoint.account.model import Access, Account, kind_of, new_private_key, public_key, reread
from entrypoint.account.registration import AccountWishes, OnWait, Registrar
from entrypoint.account.replies import ApiError
from entrypoint.account.store import PendingRegistration, Stored, StoredAccount, edit
from entrypoint.addresses import Address
from entrypoint.errors import Error
from entrypoint.linux.state_dir import ACCOUNT_FILE
from entrypoint.linux.world import Clock
from entrypoint.strict_json import InvalidError, JsonValue

TOO_MANY_DEVICES = 1056
"""Cloudflare's code for a licence that is in use on five devices."""

LICENCE_WAIT = 120.0
"""Seconds at most that a new device waits for its licence: once connected as free, it would stay so."""

log = logging.getLogger("ss-warp")


async def load_or_register(
    directory: Path,
    api: WarpApi,
    clock: Clock,
    *,
    own: Collection[Address],
    wishes: AccountWishes,
    waiting: OnWait,
) -> StoredAccount:
    """Return the account stored in `directory`, in line with `wishes`; register one when there is none.

    The caller holds `state_dir.lock(directory)`. A stored account that needs no change costs no call.
    `own` are this machine's addresses, without those of our own tunnel device: the API may not name
    them. Raises ApiError when the API refuses or the account cannot be used, StateError when the file
    cannot be read (it stays, and nothing is registered), BusyError when the disk is full (before
    registering).
    """
    path = directory / ACCOUNT_FILE
    stored = store.load(path)
    if stored and stored.leaving and await unregister(path, stored, api):
        stored = None
    if isinstance(stored, StoredAccount):
        if wishes.team and stored.account.kind != "team":
            log.warning(
                "keeping the existing %s account; to enrol instead, run `ss-warp account delete` and restart",
                stored.account.kind,
            )
        stored = await rotate_key(path, stored, api, own=own)
        return await bind_licence(path, stored, wishes.license_key, api, clock, own=own)
    pending = stored or PendingRegistration(new_private_key(), api.base_url)
    registrar = Registrar(
        api=api,
        clock=clock,
        own=own,
        wishes=wishes,
        waiting=waiting,
        save=lambda pending: store.write(path, pending),
        pending=pending,
    )
    stored = StoredAccount(await registrar.register_until_done(), license_key=pending.license_key)
    try:
        store.write(path, stored)
    except Error as error:
        # Better an account until the next start than none at all.
        log.warning("cannot save the new account, the next start will read it again: %s", error)
    return await bind_licence(path, stored, wishes.license_key, api, clock, own=own, waiting=waiting)


async def apply_pending(
    directory: Path, stored: Stored, api: WarpApi, clock: Clock, wished: str | None
) -> Stored | None:
    """Do at once what a command left to do; return what is stored then, None when the account is gone.

    The caller holds `state_dir.lock(directory)`.
    """
    path = directory / ACCOUNT_FILE
    if stored.leaving:
        return None if await unregister(path, stored, api) else stored
    if isinstance(stored, PendingRegistration):
        return stored
    stored = await rotate_key(path, stored, api, own=())
    return await bind_licence(path, stored, wished, api, clock, own=())


async def unregister(path: Path, stored: Stored, api: WarpApi) -> bool:
    """Unregister the device and forget the account; return whether that worked. Raises StateError."""
    if isinstance(stored, StoredAccount):
        access = stored.account.access
        if not stored.leaving:
            # Before the call: if only its answer is lost, the next start must not use the account.
            stored = save_change(path, stored, leaving=True)
    else:
        access = stored.device
    try:
        if access:
            await api.unregister(access)
    except ApiError as error:
        log.warning("cannot unregister the device: %s", error)
        return False
    store.remove(path)
    log.info("unregistered the device and removed its account" if access else "removed the account")
    return True


async def bind_licence(
    path: Path,
    stored: StoredAccount,
    wished: str | None,
    api: WarpApi,
    clock: Clock,
    *,
    own: Collection[Address],
    waiting: OnWait | None = None,
) -> StoredAccount:
    """Bind the licence key that is `wished` (the setting), else the command's; return what is stored then.

    No call when it is bound already. `waiting` is given for a device that has never connected.
    """
    key, account, access = wished or stored.license_key, stored.account, stored.account.access
    if not key or key == account.license_key:
        return stored
    if access is None:
        log.warning("cannot bind the licence key: an imported profile has no token")
        return stored
    if account.kind == "team":
        log.warning("cannot bind the licence key: a Zero Trust account has no licence")
        return stored
    command = stored.license_key
    stored = save_change(
        path, stored, license_key=key
    )  # if only the answer is lost, the next start binds again
    if error := await _try_to_bind(access, key, api, clock, waiting):
        words, hopeless = _explain_refusal(error)
        log.warning("the licence key %s; the account stays %s: %s", words, account.kind, error)
        # A setting is the user's to change; what a command left is not retried when it can never be bound.
        return save_change(path, stored, license_key=None if hopeless and command == key else command)
    account = replace(account, license_key=key)
    try:
        device = await api.device(access)
        account = replace(reread(account, device, own), license_key=key)
    except (ApiError, InvalidError) as unread:
        log.warning("bound the licence key, but cannot read the account again: %s", unread)
    if account.kind == "plus":
        log.info("bound the licence key: this is a WARP+ account")
    else:
        log.warning("the licence key was accepted, but the account is still %s", account.kind)
    return save_change(path, stored, account=account, license_key=None)


async def check_licence(path: Path, stored: StoredAccount, wished: str | None, api: WarpApi) -> StoredAccount:
    """Check whether a bound licence is honoured; one call, and none for other accounts.

    It may have been revoked, and a new one may take a moment to show.
    """
    account = stored.account
    bound = account.kind == "plus" or (wished is not None and account.license_key == wished)
    if account.access is None or not bound:
        return stored
    try:
        kind = kind_of(await api.device(account.access))
    except (ApiError, InvalidError) as error:
        log.debug("cannot read the account: %s", error)
        return stored
    if kind in (None, account.kind):
        return stored
    if kind == "plus":
        log.info("the licence key is in force: this is a WARP+ account")
    else:
        log.warning("the licence key is no longer honoured (revoked, or used elsewhere): free tier")
    return save_change(path, stored, account=replace(account, kind=kind))


def save_change(path: Path, stored: StoredAccount, **changes: object) -> StoredAccount:
    """Return `stored` with these changes, on the volume too where that works: it is used all the same."""
    try:
        return edit(path, lambda there: replace(there, **changes))  # type: ignore[arg-type]
    except Error as error:
        log.warning("cannot save the account's change: %s", error)
        return replace(stored, **changes)  # type: ignore[arg-type]


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
        return "is already used on 5 devices: remove one in the 1.1.1.1 app", False
    if error.gone:
        return "cannot be bound: the API does not know this device", False
    if error.status == 400:
        return "is not valid (only keys bought in the 1.1.1.1 app are, see its account screen)", True
    return "cannot be bound now, the next start tries again", False


async def rotate_key(
    path: Path, stored: StoredAccount, api: WarpApi, *, own: Collection[Address]
) -> StoredAccount:
    """Finish a rotation; a `next_private_key` that is still there may or may not be in force."""
    account, key = stored.account, stored.next_private_key
    if key is None:
        return stored
    if account.access is None:
        log.warning("cannot change the key: an imported profile has no token")
        return save_change(path, stored, next_private_key=None)
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
        log.warning("unknown whether the API accepted the new key, trying both: %s", failure or unread)
        return stored
    if now.private_key == key:
        log.info("changed the key: %s", public_key(key))
    else:
        log.warning("cannot change the key: %s", failure or "the API still shows the old one")
    return save_change(path, stored, account=now, next_private_key=None)


def settle_key(path: Path, stored: StoredAccount, private_key: str) -> StoredAccount:
    """Return what is stored once `private_key` has connected: what it might have been instead is removed."""
    changes: dict[str, object] = {}
    if stored.next_private_key is not None:
        changed = private_key == stored.next_private_key
        log.warning("the %s key is active, removed the other", "new" if changed else "old")
        changes |= {"account": replace(stored.account, private_key=private_key), "next_private_key": None}
    if stored.previous or stored.missing_since:
        changes |= {"previous": None, "missing_since": 0.0}
    if (
        stored.replacement and not stored.replacement.device
    ):  # a registered one is kept for the day it is needed
        changes |= {"replacement": None}
    return save_change(path, stored, **changes) if changes else stored


def _match_key(device: JsonValue, account: Account, key: str, own: Collection[Address]) -> Account:
    shown = device.member("key").text()
    mine = next((mine for mine in (key, account.private_key) if shown == public_key(mine)), None)
    if mine is None:
        device.member("key").reject("neither the old key nor the new one")
    return reread(replace(account, private_key=mine), device, own)
