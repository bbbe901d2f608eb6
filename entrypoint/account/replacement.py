"""An account whose tunnel is dead: whether it still exists, and what takes its place.

*Gone* has one meaning: the API itself says so, in its own JSON, twice, minutes apart. A wrong path, a
firewall's 403 or an incident of a few minutes costs no account. And the old account stays on the volume,
and is tried, until one of the two has connected.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from entrypoint.account import store
from entrypoint.account.api import WarpApi
from entrypoint.account.lifecycle import save_change
from entrypoint.account.model import new_private_key, public_key, reread
from entrypoint.account.registration import GONE_PAUSE, AccountWishes, NotNeededError, OnWait, Registrar
from entrypoint.account.replies import ApiError
from entrypoint.account.store import PendingRegistration, StoredAccount, edit
from entrypoint.addresses import Address
from entrypoint.health.diagnosis import Cause, Diagnosis
from entrypoint.linux.world import Clock
from entrypoint.strict_json import InvalidError, JsonValue

ONE_DAY = 86400.0
"""Seconds that an account must be old before it is replaced without a person's word."""

log = logging.getLogger("ss-warp")


@dataclass(frozen=True, slots=True)
class Recheck:
    """What asking the API about the account has shown.

    `trouble` is what is wrong with it, `unknown` why the API could not say. `changed`: the account on the
    volume is another now, or has other addresses or keys. `gone`: why the former one does not exist any more.
    `again`: seconds until the API has to be asked once more.
    """

    trouble: Diagnosis | None = None
    unknown: str = ""
    changed: bool = False
    gone: str = ""
    again: float | None = None


async def recheck(
    path: Path,
    api: WarpApi,
    clock: Clock,
    *,
    own: Collection[Address],
    wishes: AccountWishes,
    waiting: OnWait = lambda reason, pause: None,
    needed: Callable[[], bool] = lambda: True,
) -> Recheck:
    """Ask the API about an account whose tunnel is dead, and write down what it says.

    An account that is gone is replaced: the API has said so twice, minutes apart, and the account may be
    replaced unasked. Until then `needed` is called before each call: False when the tunnel answers again.
    Raises StateError, BusyError, and ApiError when the API refuses to register another.
    """
    stored = store.read(path)
    account, access = stored.account, stored.account.access
    if access is None:
        return Recheck(unknown="it came without a token")
    try:
        device = await api.device(access)
        shown = device.optional("key", JsonValue.text)
        ours = [public_key(key) for key in (account.private_key, stored.next_private_key) if key]
        if shown and shown not in ours:
            return Recheck(Diagnosis(Cause.KEY_REFUSED, "the device's key was changed elsewhere"))
        now = reread(account, device, own)
    except InvalidError as error:
        return Recheck(unknown=f"cannot use the API's answer: {error}")
    except ApiError as error:
        if error.gone:
            return await _handle_gone(path, stored, api, clock, own, wishes, waiting, needed, error)
        return Recheck(unknown=error.message)
    if stored.previous:
        # Both exist, this one has not connected: the other has its turn.
        save_change(path, stored, account=stored.previous, previous=now, missing_since=0.0)
        log.info("trying the account that was replaced: it may still exist")
        return Recheck(changed=True)
    stored = save_change(path, stored, account=now, missing_since=0.0)
    same = replace(
        now, kind=account.kind, license_key=account.license_key, endpoint_name=account.endpoint_name
    )
    return Recheck(changed=replace(same, ports=account.ports) != account)


async def _handle_gone(
    path: Path,
    stored: StoredAccount,
    api: WarpApi,
    clock: Clock,
    own: Collection[Address],
    wishes: AccountWishes,
    waiting: OnWait,
    needed: Callable[[], bool],
    error: ApiError,
) -> Recheck:
    """Replace an account that the API does not know, once it has said so twice and where that is allowed."""
    account, since, now = stored.account, stored.missing_since, clock.wall()
    missing = Diagnosis(Cause.ACCOUNT_GONE, f"the API does not know this device: {error.message}")
    if stored.previous:
        save_change(path, stored, account=stored.previous, previous=None, missing_since=0.0)
        return Recheck(changed=True)
    if not since:
        save_change(path, stored, missing_since=now)
        return Recheck(missing, again=GONE_PAUSE)
    if now - since < GONE_PAUSE:
        return Recheck(missing, again=since + GONE_PAUSE - now)
    young = now - account.created.timestamp() < ONE_DAY
    if account.kind not in ("free", "plus") or young:
        why = (
            "accounts are replaced once a day at most"
            if young
            else f"a {account.kind} account is never replaced"
        )
        sentence = f"the account no longer exists ({error.message}), and {why}"
        remedy = "to start over, run `ss-warp account delete` and restart"
        return Recheck(Diagnosis(Cause.ACCOUNT_GONE, sentence, remedy))
    license_key = account.license_key if account.kind == "plus" else None
    new = stored.replacement or PendingRegistration(new_private_key(), api.base_url, license_key=license_key)
    registrar = Registrar(
        api=api,
        clock=clock,
        own=own,
        # What was enrolled or imported is not asked for again: a file names the same dead device.
        wishes=AccountWishes(wishes.device_name, license_key),
        waiting=waiting,
        save=lambda pending: _save_replacement(path, pending),
        pending=new,
        needed=needed,
    )
    try:
        replacement = await registrar.register_until_done()
    except NotNeededError:
        return Recheck()
    save_change(
        path,
        stored,
        account=replacement,
        previous=account,
        replacement=None,
        missing_since=0.0,
        next_private_key=None,
        license_key=license_key,
    )
    return Recheck(changed=True, gone=error.message)


def _save_replacement(path: Path, pending: PendingRegistration) -> None:
    edit(path, lambda there: replace(there, replacement=pending))
