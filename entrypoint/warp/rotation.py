"""A new key for the same device (warp-api 4): PUT it, and lose neither key until the answer is known.

The new key is on the volume before it is sent. An answer that got lost is asked for; when that fails
too, both keys are tried at the edge, and the one that works is kept.
"""

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from entrypoint.network.plan import Address
from entrypoint.warp.account import Account, public_key
from entrypoint.warp.api import WarpApi
from entrypoint.warp.fields import Field, InvalidError
from entrypoint.warp.licence import again, keep
from entrypoint.warp.replies import ApiError
from entrypoint.warp.store import Kept

log = logging.getLogger("ss-warp")


async def rotated(path: Path, kept: Kept, api: WarpApi, *, own: Collection[Address]) -> Kept:
    """Bring a rotation to its end; a `next_private_key` that is still there may or may not be in force."""
    account, key = kept.account, kept.next_private_key
    if key is None:
        return kept
    if account.access is None:
        log.warning("the key is not changed: an imported profile has no token to change it with")
        return keep(path, kept, next_private_key=None)
    failure: ApiError | None = None
    device: Field | None = None
    try:
        device = await api.rekey(account.access, public_key(key))
    except ApiError as error:
        failure = error
    try:
        device = device or await api.device(account.access)
        now = _with_its_key(device, account, key, own)
    except (ApiError, InvalidError) as unread:
        log.warning("whether the key was changed is not known, both are tried: %s", failure or unread)
        return kept
    if now.private_key == key:
        log.info("the key is changed: %s", public_key(key))
    else:
        log.warning("the key is not changed: %s", failure or "the API still shows the old one")
    return keep(path, kept, account=now, next_private_key=None)


def settled(path: Path, kept: Kept, private_key: str) -> Kept:
    """Return what is kept once `private_key` has proved to be the one in force: the other is removed."""
    if kept.next_private_key is None:
        return kept
    changed = private_key == kept.next_private_key
    log.warning("the %s key is in force, the other is removed", "new" if changed else "old")
    account = replace(kept.account, private_key=private_key)
    return keep(path, kept, account=account, next_private_key=None)


def _with_its_key(device: Field, account: Account, key: str, own: Collection[Address]) -> Account:
    shown = device.at("key").text()
    mine = next((mine for mine in (key, account.private_key) if shown == public_key(mine)), None)
    if mine is None:
        device.at("key").refuse("neither the old key nor the new one")
    return again(replace(account, private_key=mine), device, own)
