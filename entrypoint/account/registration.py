"""Register an account, retrying for as long as it takes within the API's rate limits.

*Registered* and *usable* are two steps. What the API has created, its id and token, is on the volume before
its answer is judged, and a later start reads that device again instead of registering another. When the
next call is due is on the volume, too: a container that restarts in a loop must not call faster than one
that waits.
"""

import base64
import hashlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from entrypoint.account.api import WarpApi
from entrypoint.account.formats import MAX_FILE, read_profile
from entrypoint.account.model import Access, Account, Kind, access_in, parse_account, public_key, uses_masque
from entrypoint.account.replies import LONGEST, UNCERTAIN, ApiError
from entrypoint.account.store import PendingRegistration
from entrypoint.addresses import Address
from entrypoint.errors import Error, SettingsError
from entrypoint.linux.world import Clock
from entrypoint.retry import retrying
from entrypoint.settings.values import token_in
from entrypoint.strict_json import InvalidError, JsonValue, parse_json

type OnWait = Callable[[str, float], None]
"""Takes why there is no account yet (one line) and the seconds until the next attempt."""

type Save = Callable[[PendingRegistration], None]
"""Writes the registration to the volume; may raise StateError or BusyError."""

FIRST_PAUSE = 1.0
LONGEST_UNSENT = 25.0
"""Seconds; when nothing was sent the tunnel is up within 30 s of the API."""

REFUSAL_PAUSE = 300.0
"""Seconds until a restarted container repeats what the API has refused."""

GONE_PAUSE = 300.0
"""Seconds, at least, between the two answers that make a device count as gone."""

LOOK_AGAIN = 300.0
"""Seconds of a long wait after which the clock is read again: it may have been set meanwhile."""

log = logging.getLogger("ss-warp")


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
        """The page where devices are enrolled."""
        domain = self.organisation if "." in self.organisation else f"{self.organisation}.{DOMAIN}"
        return f"https://{domain}/warp"


type Team = PastedToken | ServiceToken
DOMAIN = "cloudflareaccess.com"


@dataclass(frozen=True, slots=True)
class AccountWishes:
    """What the settings want of the account."""

    device_name: str
    license_key: str | None = field(default=None, repr=False)
    import_file: Path | None = None
    team: Team | None = None

    @property
    def digest(self) -> str:
        """What a refusal is about: the same again is refused again, anything else is worth a call."""
        match self.import_file, self.team:
            case Path() as file, _:
                what = ["file", _content(file).decode("latin-1")]
            case _, PastedToken(jwt):
                what = ["token", jwt]
            case _, ServiceToken(organisation, client_id, secret):
                what = ["service", organisation, client_id, secret]
            case _:
                what = ["device"]
        return _digest(*what)


def _digest(*what: str) -> str:
    return hashlib.sha256("\0".join(what).encode()).hexdigest()[:16]


@dataclass(slots=True, kw_only=True)
class Registrar:
    """Registers one account. `own` are this machine's addresses; `pending` is what the volume has of it."""

    api: WarpApi
    clock: Clock
    own: Collection[Address]
    wishes: AccountWishes
    waiting: OnWait
    save: Save
    pending: PendingRegistration
    needed: Callable[[], bool] = lambda: True

    async def register_until_done(self) -> Account:
        """Return a usable account; its key and token are on the volume before anything else is done.

        Raises ApiError when the API refuses or the account cannot be used, SettingsError for the file to
        import, BusyError when the disk is full (before any call), NotNeededError.
        """
        if self.pending.api != self.api.base_url:  # another API's deadlines
            self.pending = replace(self.pending, api=self.api.base_url, due=0, refused="")
        await self._wait_until_due()
        self.save(self.pending)  # the key, before anyone else sees it

        def before_pause(error: BaseException, pause: float) -> None:
            asked = isinstance(error, ApiError) and error.again
            self._save(due=self.clock.wall() + pause if asked else 0)
            self.waiting(str(error), pause)

        try:
            async for attempt in retrying(
                self.clock.sleep,
                first=FIRST_PAUSE,
                longest=LONGEST_UNSENT,
                demanded=lambda error: error.again if isinstance(error, ApiError) else None,
                before_pause=before_pause,
            ):
                with attempt:
                    if not self.needed():
                        raise NotNeededError
                    account = await self._attempt()
        except ApiError:
            self._save(refused=self._subject(), refused_until=self.clock.wall() + REFUSAL_PAUSE, due=0)
            raise
        return account

    def _subject(self) -> str:
        """Return what a refusal would be about."""
        return _digest("read", self.pending.device.device_id) if self.pending.device else self.wishes.digest

    async def _wait_until_due(self) -> None:
        """Wait for what an earlier start left, an hour at most: the clock may have been wrong then."""
        left, reported = LONGEST, False
        while True:
            due = 0.0 if self.pending.device else self.pending.due
            if self.pending.refused and self.pending.refused == self._subject():
                due = max(due, self.pending.refused_until)
            rest = min(due - self.clock.wall(), left)
            if rest <= 0:
                return
            if not reported:
                self.waiting("the last attempt before this start failed", rest)
            reported = True
            await self.clock.sleep(min(rest, LOOK_AGAIN))
            left -= min(rest, LOOK_AGAIN)

    def _save(self, **changes: object) -> None:
        """Write the changes down; a full disk is no reason to lose what the API has created."""
        self.pending = replace(self.pending, **changes)  # type: ignore[arg-type]
        try:
            self.save(self.pending)
        except Error as error:
            log.warning("cannot save the registration, continuing with the values in memory: %s", error)

    async def _attempt(self) -> Account:
        if self.pending.device and not await self._is_unwanted(self.pending.device):
            return await self._read_again(self.pending.device)
        if self.wishes.import_file:
            return await import_account(self.api, self.clock, self.own, self.wishes.import_file)
        if self.wishes.team:
            return await self._enrol(self.wishes.team)
        return await self._create()

    async def _is_unwanted(self, access: Access) -> bool:
        """Unregister the device when the settings now name another account; return whether they do."""
        if not (self.wishes.import_file or (self.wishes.team and self.pending.kind != "team")):
            return False
        await self.api.unregister(access)
        self._save(device=None, kind=None)
        return True

    async def _create(self, jwt: str | None = None, kind: Kind | None = None) -> Account:
        """Register a device, write down what was created, then judge it."""
        # Killed from here on, the call may have been carried out.
        self._save(due=self.clock.wall() + UNCERTAIN)
        name = self.wishes.device_name
        device = await self.api.register(public_key(self.pending.private_key), name, jwt)
        try:
            access = access_in(device)
        except InvalidError as error:
            raise ApiError(f"the API's answer is not a registration: {error}", again=UNCERTAIN) from error
        self._save(device=access, kind=kind, due=0, refused="", missing_since=0)
        return await self._judge(device, access)

    async def _read_again(self, access: Access) -> Account:
        """Read what was registered before."""
        try:
            device = await self.api.device(access)
        except ApiError as error:
            if not error.gone:
                raise
            now, since = self.clock.wall(), self.pending.missing_since
            if since and now - since >= GONE_PAUSE:
                log.warning("the registered device no longer exists, registering another: %s", error)
                self._save(device=None, missing_since=0)
                return await self._attempt()
            self._save(missing_since=since or now)
            raise ApiError(error.message, again=GONE_PAUSE, status=error.status) from error
        return await self._judge(device, access)

    async def _judge(self, device: JsonValue, access: Access) -> Account:
        """Return the account if it can be used here; what the API can correct, one call lets it."""
        key = self.pending.private_key
        try:
            if uses_masque(device):
                try:
                    device = await self.api.use_wireguard(access, public_key(key))
                except ApiError as error:
                    if error.again is not None:
                        raise
            elif device.member("key").value not in (None, "", public_key(key)):
                device = await self.api.rekey(access, public_key(key))
            return new_account(device, key, self.clock, self.own, kind=self.pending.kind, access=access)
        except InvalidError as error:
            raise ApiError(
                f"cannot use the registered device: {error}",
                "it is saved and read again at the next start; `ss-warp account delete` unregisters it",
            ) from error

    async def _enrol(self, team: Team) -> Account:
        """Register a device of an organisation."""
        jwt = team.jwt if isinstance(team, PastedToken) else await _request_token(self.api, team)
        pasted, end, now = isinstance(team, PastedToken), expiry(jwt), self.clock.wall()
        if pasted and end is not None and end < now:
            raise ApiError(f"the team token expired {now - end:.0f} s ago", LOG_IN_AGAIN)
        failure: ApiError | None = None
        try:
            return await self._create(jwt, "team")
        except ApiError as error:
            failure = error if self.pending.device else _explain_refusal(error, jwt, now, pasted=pasted)
        raise failure  # outside the handler: its context would hold the token


class NotNeededError(Exception):
    """The account that was to be replaced has come back."""


def new_account(
    device: JsonValue,
    private_key: str,
    clock: Clock,
    own: Collection[Address],
    *,
    kind: Kind | None = None,
    access: Access | None = None,
) -> Account:
    """Return the account as of now; parts of the answer that had to be left out are logged in one line.

    Raises InvalidError.
    """
    left_out: list[str] = []
    account = parse_account(
        device,
        private_key=private_key,
        created=datetime.fromtimestamp(int(clock.wall()), UTC),
        own=own,
        kind=kind,
        access=access,
        warn=left_out.append,
    )
    if left_out:
        log.warning("ignored unusable parts of the account: %s", "; ".join(left_out))
    return account


def _content(file: Path) -> bytes:
    """Read a file to import. Raises SettingsError."""
    try:
        with file.open("rb") as content:
            return content.read(MAX_FILE + 1)
    except OSError as error:
        raise SettingsError([f"WARP_IMPORT_FILE: {file}: {error.strerror or error}"]) from error


async def import_account(api: WarpApi, clock: Clock, own: Collection[Address], file: Path) -> Account:
    """Return the account in `file`; the API is called when the file has no more than a token.

    Raises SettingsError for the file, ApiError.
    """
    form = ""
    try:
        found = read_profile(_content(file))
        form = f" ({found.form})"
        device = found.device
        if device is None and found.access:
            device = await api.device(found.access)
            if device.member("key").value != public_key(found.private_key):
                raise InvalidError("its private key is no longer the device's")
        account = new_account(
            device or JsonValue(None),
            found.private_key,
            clock,
            own,
            kind=None if found.access else "imported",
            access=found.access,
        )
    except InvalidError as error:
        raise SettingsError([f"WARP_IMPORT_FILE: {file}{form}: {error}"]) from error
    log.info("imported the account in %s (%s)", file, found.form)
    if found.access is None:
        log.warning(
            "the imported account has no token: it connects, but ss-warp cannot change its key or licence, "
            "or unregister the device"
        )
    return account


def expiry(jwt: str) -> float | None:
    """Return when the token ends, in seconds since 1970; None when it does not say. Nothing is verified."""
    try:
        claims = jwt.split(".")[1]
        when = parse_json(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))).member("exp").value
    except (InvalidError, ValueError, IndexError):
        return None
    return float(when) if isinstance(when, int | float) else None


async def _request_token(api: WarpApi, service: ServiceToken) -> str:
    """Get a token from Access: it comes in the address of a redirect, in a cookie or in the page."""
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


LOG_IN_AGAIN = "log in again and start at once: a token is good for about a minute"


def _explain_refusal(error: ApiError, jwt: str, now: float, *, pasted: bool) -> ApiError:
    """Return the failure with what a person can do about it; what cannot help is not retried."""
    end = expiry(jwt)
    again, hint = error.again, error.hint
    if error.status in (400, 401, 403):
        hint = "the organisation's rules refuse this device: enrolment policy, posture or device limit"
        if error.status == 401:
            hint = "the token is another organisation's, or this machine's clock is wrong"
        if end is not None and end < now:
            hint = f"the token expired {now - end:.0f} s ago; {LOG_IN_AGAIN}"
    if pasted and again and (end is None or end < now + again):
        again, hint = None, LOG_IN_AGAIN
    return ApiError(error.message, hint, again=again, status=error.status, code=error.code)
