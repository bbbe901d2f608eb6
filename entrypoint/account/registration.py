"""How there comes to be an account: asked for as often as it takes, and never faster than the API allows.

When the next try is due is kept on the volume: a container that restarts in a loop must not ask faster
than one that waits.
"""

import base64
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from entrypoint.account.api import WarpApi
from entrypoint.account.formats import MAX_FILE, read_profile
from entrypoint.account.model import Account, new_private_key, parse_account, public_key
from entrypoint.account.replies import LONGEST, UNCERTAIN, ApiError
from entrypoint.account.store import PendingRegistration, write
from entrypoint.account.strict_json import InvalidError, JsonValue, parse_json
from entrypoint.addresses import Address
from entrypoint.errors import SettingsError
from entrypoint.linux.world import Clock
from entrypoint.settings.values import token_in

type OnWait = Callable[[str, float], None]
"""Told why there is no account yet (one line) and in how many seconds the next try is."""

type Registration = Callable[[str], Awaitable[Account]]
"""One try to get an account for a private key; raises ApiError."""

REFUSAL_PAUSE: Final = 300.0
"""Seconds until a restarted container asks again what the API has refused."""

log = logging.getLogger("ss-warp")


async def register_until_done(
    path: Path,
    pending: PendingRegistration | None,
    api: WarpApi,
    clock: Clock,
    attempt: Registration,
    waiting: OnWait,
) -> Account:
    """Return what `attempt` got in the end; its key is on the volume before anybody else sees it.

    `pending` is what an earlier start left. Raises ApiError when the API refuses, BusyError when the
    disk is full (before anything is asked).
    """
    key = pending.private_key if pending else new_private_key()
    now = PendingRegistration(key, api.base_url, license_key=pending.license_key if pending else None)
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
        wait=_next_pause,
        retry=retry_if_exception(lambda error: isinstance(error, ApiError) and error.again is not None),
        before_sleep=before_sleep,
        reraise=True,
    )
    try:
        account: Account = await retrying(attempt, key)
    except ApiError:
        write(path, replace(now, due=clock.wall() + REFUSAL_PAUSE))
        raise
    return account


def new_device(api: WarpApi, clock: Clock, own: Collection[Address], device_name: str) -> Registration:
    """Return how a new device is registered; `own` are this machine's addresses."""

    async def attempt(key: str) -> Account:
        device = await api.register(public_key(key), device_name)
        created = datetime.fromtimestamp(int(clock.wall()), UTC)
        try:
            return parse_account(device, private_key=key, own=own, created=created)
        except InvalidError as error:
            # Not tried again: the device exists by now, and the next answer would be no better.
            raise ApiError(f"the API's answer cannot be used: {error}") from error

    return attempt


def imported_account(api: WarpApi, clock: Clock, own: Collection[Address], file: Path) -> Registration:
    """Return how the account in `file` is taken over. The attempt raises SettingsError for the file."""

    async def attempt(_: str) -> Account:
        try:
            with file.open("rb") as content:
                found = read_profile(content.read(MAX_FILE + 1))
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
            account = parse_account(
                device or JsonValue(None),
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


def _next_pause(state: RetryCallState) -> float:
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


DOMAIN: Final = "cloudflareaccess.com"


@dataclass(frozen=True, slots=True)
class PastedToken:
    """The token that a person got after logging in at `https://<team>.cloudflareaccess.com/warp`."""

    jwt: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """An organisation's name or domain, and the token that Access takes in place of a person."""

    organisation: str
    client_id: str
    client_secret: str = field(repr=False)

    @property
    def page(self) -> str:
        """Where devices are enrolled."""
        domain = self.organisation if "." in self.organisation else f"{self.organisation}.{DOMAIN}"
        return f"https://{domain}/warp"


type Team = PastedToken | ServiceToken


def expiry(jwt: str) -> float | None:
    """Return when the token ends, in seconds since 1970; None when it does not say. Nothing is verified."""
    try:
        claims = jwt.split(".")[1]
        when = parse_json(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))).at("exp").value
    except (InvalidError, ValueError, IndexError):
        return None
    return float(when) if isinstance(when, int | float) else None


def team_device(
    api: WarpApi, clock: Clock, own: Collection[Address], device_name: str, team: Team
) -> Registration:
    """Return how a device is enrolled; `own` are this machine's addresses."""

    async def attempt(key: str) -> Account:
        jwt = team.jwt if isinstance(team, PastedToken) else await _request_token(api, team)
        failure: ApiError | None = None
        device = JsonValue(None)
        try:
            device = await api.register(public_key(key), device_name, jwt)
        except ApiError as error:
            failure = _explain_refusal(error, jwt, clock.wall(), pasted=isinstance(team, PastedToken))
        if failure:
            raise failure
        created = datetime.fromtimestamp(int(clock.wall()), UTC)
        try:
            return parse_account(device, private_key=key, own=own, created=created, kind="team")
        except InvalidError as error:
            raise ApiError(f"the API's answer cannot be used: {error}") from error

    return attempt


async def _request_token(api: WarpApi, service: ServiceToken) -> str:
    """Ask Access for a token; it comes in the address of a redirect, a cookie or the page (2.1)."""
    headers = {"CF-Access-Client-Id": service.client_id, "CF-Access-Client-Secret": service.client_secret}
    reply = await api.page(service.page, headers)
    if reply.status < 400:
        for text in (reply.location, *reply.cookies, reply.body.decode(errors="replace")):
            if found := token_in(text):
                return found
    busy = reply.status == 429 or reply.status >= 500
    raise ApiError(
        f"{reply.host} answered {reply.status} and gave no token for the service token",
        "check WARP_ORG, WARP_AUTH_CLIENT_ID and WARP_AUTH_CLIENT_SECRET; the device enrolment rules need a "
        "policy with the action Service Auth",
        again=UNCERTAIN if busy else None,
        status=reply.status,
    )


def _explain_refusal(error: ApiError, jwt: str, now: float, *, pasted: bool) -> ApiError:
    """Return the failure with what a person can do about it; what cannot help is not tried again."""
    end = expiry(jwt)
    anew = "log in again and start at once: a token is good for about a minute"
    again, hint = error.again, error.hint
    if error.status in (400, 401, 403):
        hint = "the organisation's rules refuse this device: enrolment policy, posture or device limit"
        if error.status == 401:
            hint = "the token is another organisation's, or the clock of this machine is wrong"
        if end is not None and end < now:
            hint = f"the token ended {now - end:.0f} s ago; {anew}"
    if pasted and again and (end is None or end < now + again):
        again, hint = None, anew
    return ApiError(error.message, hint, again=again, status=error.status, code=error.code)
