"""WARP+: a licence key bound to the device's account, best before its first handshake (warp-api 3).

Whatever happens to the licence, the account connects: without it as a free one.
"""

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from entrypoint.errors import Error
from entrypoint.network.plan import Address
from entrypoint.ports import Clock
from entrypoint.warp.account import Access, Account, account_of, kind_of
from entrypoint.warp.api import WarpApi
from entrypoint.warp.fields import Field, InvalidError
from entrypoint.warp.registration import Waiting
from entrypoint.warp.replies import ApiError
from entrypoint.warp.store import Kept, edit

TOO_MANY_DEVICES: Final = 1056
"""Cloudflare's code for a licence that is on five devices already."""

PATIENCE: Final = 120.0
"""Seconds at most that a new device waits for its licence: once connected as free, it would stay so."""

log = logging.getLogger("ss-warp")


async def licensed(
    path: Path,
    kept: Kept,
    wished: str | None,
    api: WarpApi,
    clock: Clock,
    *,
    own: Collection[Address],
    waiting: Waiting | None = None,
) -> Kept:
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
    if error := await _bound(access, key, api, clock, waiting):
        words, hopeless = _refusal(error)
        log.warning("the licence key %s; the account stays %s: %s", words, account.kind, error)
        # A command's key that never can be bound is not tried for ever; a setting is the user's to change.
        return keep(path, kept, license_key=None) if hopeless and kept.license_key == key else kept
    account = replace(account, license_key=key)
    try:
        device = await api.device(access)
        account = replace(again(account, device, own), license_key=key)
    except (ApiError, InvalidError) as unread:
        log.warning("the licence key is bound, but the account cannot be read again: %s", unread)
    if account.kind == "plus":
        log.info("the licence key is bound: this is a WARP+ account")
    else:
        log.warning("the licence key was accepted, but the account is still %s", account.kind)
    return keep(path, kept, account=account, license_key=None)


async def confirmed(path: Path, kept: Kept, wished: str | None, api: WarpApi) -> Kept:
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
    return keep(path, kept, account=replace(account, kind=kind))


def again(account: Account, device: Field, own: Collection[Address]) -> Account:
    """Return the account as a later answer shows it; key, token and age stay. Raises InvalidError."""
    return account_of(
        device,
        private_key=account.private_key,
        created=account.created,
        own=own,
        token=account.access.token if account.access else None,
    )


def keep(path: Path, kept: Kept, **changes: object) -> Kept:
    """Return `kept` with these changes, on the volume too where that works: it is used all the same."""
    try:
        return edit(path, lambda there: replace(there, **changes))  # type: ignore[arg-type]
    except Error as error:
        log.warning("the account's change cannot be kept: %s", error)
        return replace(kept, **changes)  # type: ignore[arg-type]


async def _bound(
    access: Access, key: str, api: WarpApi, clock: Clock, waiting: Waiting | None
) -> ApiError | None:
    """Try, and a second time before a device's first handshake; return why it did not work."""
    for last in (waiting is None, True):
        try:
            await api.bind(access, key)
        except ApiError as error:
            if last or waiting is None or error.again is None or error.again > PATIENCE:
                return error
            pause = max(error.again, 1.0)
            waiting(f"the licence key is not bound yet: {error}", pause)
            await clock.sleep(pause)
        else:
            break
    return None


def _refusal(error: ApiError) -> tuple[str, bool]:
    """Return what a failure says of the key, and whether that stays so."""
    if error.code == TOO_MANY_DEVICES:
        return "is full (it is on 5 devices: remove one in the app)", False
    if error.gone:
        return "cannot be bound: the API does not know this device any more", False
    if error.status == 400:
        return "is not valid (only keys bought in the app are, see its account screen)", True
    return "cannot be bound now, the next start tries again", False
