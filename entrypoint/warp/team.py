"""Zero Trust: a device enrolled into an organisation, by a pasted token or a service token (warp-api 2).

A token is good for about a minute, so it is used at once and an account is kept: nobody can enrol again
by restarting.
"""

import base64
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from entrypoint.network.plan import Address
from entrypoint.ports import Clock
from entrypoint.warp.account import Account, account_of, public_key
from entrypoint.warp.api import WarpApi
from entrypoint.warp.fields import Field, InvalidError, parsed
from entrypoint.warp.registration import Attempt
from entrypoint.warp.replies import UNCERTAIN, ApiError

DOMAIN: Final = "cloudflareaccess.com"
_JWT: Final = r"[\w-]{2,4096}\.[\w-]{2,4096}\.[\w-]{2,4096}"
_LINK: Final = re.compile(rf"[?&]token=({_JWT})(?![\w.-])")
_COOKIE: Final = re.compile(rf"\bCF_Authorization=({_JWT})(?![\w.-])")


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


def token_in(text: str) -> str | None:
    """Return the token in a link `com.cloudflare.warp://…?token=…`, a page with it, or a token itself."""
    if re.fullmatch(_JWT, text.strip(), re.ASCII):
        return text.strip()
    found = _LINK.search(text) or _COOKIE.search(text)
    return found[1] if found else None


def expiry(jwt: str) -> float | None:
    """Return when the token ends, in seconds since 1970; None when it does not say. Nothing is verified."""
    try:
        claims = jwt.split(".")[1]
        when = parsed(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))).at("exp").value
    except (InvalidError, ValueError, IndexError):
        return None
    return float(when) if isinstance(when, int | float) else None


def enrolling(api: WarpApi, clock: Clock, own: Collection[Address], device_name: str, team: Team) -> Attempt:
    """Return how a device is enrolled; `own` are this machine's addresses."""

    async def attempt(key: str) -> Account:
        jwt = team.jwt if isinstance(team, PastedToken) else await _asked(api, team)
        failure: ApiError | None = None
        device = Field(None)
        try:
            device = await api.register(public_key(key), device_name, jwt)
        except ApiError as error:
            failure = _explained(error, jwt, clock.wall(), pasted=isinstance(team, PastedToken))
        if failure:
            raise failure
        created = datetime.fromtimestamp(int(clock.wall()), UTC)
        try:
            return account_of(device, private_key=key, own=own, created=created, kind="team")
        except InvalidError as error:
            raise ApiError(f"the API's answer cannot be used: {error}") from error

    return attempt


async def _asked(api: WarpApi, service: ServiceToken) -> str:
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


def _explained(error: ApiError, jwt: str, now: float, *, pasted: bool) -> ApiError:
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
