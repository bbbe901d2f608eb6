"""How there comes to be an account: asked for as often as it takes, and never faster than the API allows.

When the next try is due is kept on the volume: a container that restarts in a loop must not ask faster
than one that waits.
"""

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from entrypoint.errors import SettingsError
from entrypoint.network.plan import Address
from entrypoint.ports import Clock
from entrypoint.warp.account import Account, account_of, new_private_key, public_key
from entrypoint.warp.api import WarpApi
from entrypoint.warp.fields import Field, InvalidError
from entrypoint.warp.imported import LARGEST, read
from entrypoint.warp.replies import LONGEST, ApiError
from entrypoint.warp.store import Pending, write

type Waiting = Callable[[str, float], None]
"""Told why there is no account yet (one line) and in how many seconds the next try is."""

type Attempt = Callable[[str], Awaitable[Account]]
"""One try to get an account for a private key; raises ApiError."""

REFUSED: Final = 300.0
"""Seconds until a restarted container asks again what the API has refused."""

log = logging.getLogger("ss-warp")


async def obtained(
    path: Path, pending: Pending | None, api: WarpApi, clock: Clock, attempt: Attempt, waiting: Waiting
) -> Account:
    """Return what `attempt` got in the end; its key is on the volume before anybody else sees it.

    `pending` is what an earlier start left. Raises ApiError when the API refuses, BusyError when the
    disk is full (before anything is asked).
    """
    key = pending.private_key if pending else new_private_key()
    now = Pending(key, api.base_url, license_key=pending.license_key if pending else None)
    if pending and pending.api == api.base_url:
        rest = min(pending.due - clock.wall(), LONGEST)
        if rest > 0:
            waiting("the last try before this start has failed", rest)
            await clock.sleep(rest)
    write(path, now)

    def before_sleep(state: RetryCallState) -> None:
        error, pause = _failure(state), state.upcoming_sleep
        if error.again:
            write(path, replace(now, due=clock.wall() + pause))
        waiting(str(error), pause)

    retrying = AsyncRetrying(
        sleep=clock.sleep,
        wait=_pause,
        retry=retry_if_exception(lambda error: isinstance(error, ApiError) and error.again is not None),
        before_sleep=before_sleep,
        reraise=True,
    )
    try:
        account: Account = await retrying(attempt, key)
    except ApiError:
        write(path, replace(now, due=clock.wall() + REFUSED))
        raise
    return account


def registering(api: WarpApi, clock: Clock, own: Collection[Address], device_name: str) -> Attempt:
    """Return how a new device is registered; `own` are this machine's addresses."""

    async def attempt(key: str) -> Account:
        device = await api.register(public_key(key), device_name)
        created = datetime.fromtimestamp(int(clock.wall()), UTC)
        try:
            return account_of(device, private_key=key, own=own, created=created)
        except InvalidError as error:
            # Not tried again: the device exists by now, and the next answer would be no better.
            raise ApiError(f"the API's answer cannot be used: {error}") from error

    return attempt


def importing(api: WarpApi, clock: Clock, own: Collection[Address], file: Path) -> Attempt:
    """Return how the account in `file` is taken over. The attempt raises SettingsError for the file."""

    async def attempt(_: str) -> Account:
        try:
            with file.open("rb") as content:
                found = read(content.read(LARGEST + 1))
        except OSError as error:
            raise SettingsError([f"WARP_IMPORT_FILE: {file}: {error.strerror or error}"]) from error
        except InvalidError as error:
            raise SettingsError([f"WARP_IMPORT_FILE: {file}: {error}"]) from error
        device = found.device
        if device is None and found.access:
            device = await api.device(found.access)
            if device.at("key").value != public_key(found.private_key):
                raise SettingsError(
                    [f"WARP_IMPORT_FILE: {file}: its private key is not the device's any more"]
                )
        created = datetime.fromtimestamp(int(clock.wall()), UTC)
        try:
            account = account_of(
                device or Field(None),
                private_key=found.private_key,
                own=own,
                created=created,
                kind=None if found.access else "imported",
                token=found.access.token if found.access else None,
            )
        except InvalidError as error:
            raise SettingsError([f"WARP_IMPORT_FILE: {file} ({found.form}): {error}"]) from error
        log.info("the account is taken over from %s (%s)", file, found.form)
        if found.access is None:
            log.warning(
                "it has no token: it connects, but key and licence cannot be changed, and nobody here "
                "can unregister the device"
            )
        return account

    return attempt


def _pause(state: RetryCallState) -> float:
    """Return the seconds until the next try: exponential, full jitter above what the failure demands."""
    demanded = _failure(state).again
    if not demanded:  # nobody was asked and is bothered: the chain is up within 30 s of the API
        return wait_random_exponential(multiplier=1, max=25)(state)
    return wait_random_exponential(multiplier=60, max=LONGEST, min=demanded)(state)


def _failure(state: RetryCallState) -> ApiError:
    error = state.outcome and state.outcome.exception()
    if not isinstance(error, ApiError):
        raise TypeError("only a failed call is tried again")
    return error
