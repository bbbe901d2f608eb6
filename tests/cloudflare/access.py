"""Access, Zero Trust's door: the page that enrols devices, and its tokens."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.cloudflare.answers import Refused
from tests.cloudflare.config import TEAM, TEAM_NAME
from tests.cloudflare.web import Request, Response

type Way = Literal["location", "page", "cookie"]
EXPIRED = "token is expired by "


@dataclass(slots=True)
class Access:
    """An organisation: its service tokens (id to secret), how a token is handed over, how long it is good."""

    services: dict[str, str] = field(default_factory=dict)
    way: Way = "location"
    lifetime: float = 50.0
    devices_at_most: int | None = None
    refusing: bool = False
    """A bad service token gets 403 instead of the login page (T1)."""
    skew: float = 0.0
    """Seconds that the organisation's clock is ahead (T2)."""
    single_use: bool = False
    malformed: int = 500
    """The status for what is no token (T3)."""
    clock: Callable[[], float] = time.time
    _used: set[str] = field(default_factory=set)
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def mint(self, lifetime: float | None = None, issuer: str = TEAM_NAME) -> str:
        """Return a token that this server issued."""
        now = self.clock() + self.skew
        end = now + (self.lifetime if lifetime is None else lifetime)
        claims = {
            "type": "app",
            "iss": f"https://{issuer}",
            "iat": int(now),
            "exp": int(end),
            "aud": ["warp"],
        }
        body = f"{_packed({'alg': 'HS256', 'typ': 'JWT'})}.{_packed(claims)}"
        return f"{body}.{self._signature(body)}"

    def check(self, token: str, enrolled: int) -> None:
        """Accept a token that this server issued. Raises Refused; `enrolled` is the number of devices."""
        body, _, signature = token.rpartition(".")
        try:
            claims = json.loads(_unpacked(body.split(".")[1]))
        except (ValueError, IndexError):
            raise Refused(self.malformed, [{"code": 1000, "message": "Internal error"}]) from None
        if not hmac.compare_digest(signature, self._signature(body)) or TEAM_NAME not in claims["iss"]:
            raise Refused(401, [{"code": 1000, "message": "Invalid token"}])
        late = self.clock() + self.skew - claims["exp"]
        if late > 0:
            raise Refused(401, [{"code": 1000, "message": f"{EXPIRED}{late:.0f}s"}])
        if self.single_use and token in self._used:
            raise Refused(401, [{"code": 1000, "message": "Token was used"}])
        self._used.add(token)
        if self.devices_at_most is not None and enrolled >= self.devices_at_most:
            raise Refused(403, [{"code": 1000, "message": "Maximum number of devices reached"}])

    def answer(self, request: Request) -> Response:
        """Answer at the organisation's host."""
        if request.path != "/warp":
            return Response(404, b"404 page not found")
        secret = request.headers.get("cf-access-client-secret")
        if secret is None or self.services.get(request.headers.get("cf-access-client-id", "")) != secret:
            if self.refusing:
                return Response(403, b"Forbidden")
            login = f"https://{TEAM_NAME}/cdn-cgi/access/login/{TEAM_NAME}?kid=1&meta={self.mint(0)}"
            return Response(302, b"", {"location": login})
        token = self.mint()
        link = f"com.cloudflare.warp://{TEAM_NAME}/auth?token={token}"
        match self.way:
            case "location":
                return Response(302, b"", {"location": f"{link}&x=1"})
            case "page":
                return Response(200, f'<meta http-equiv="refresh" content="0;url={link}">'.encode())
            case "cookie":
                return Response(200, b"ok", {"set-cookie": f"CF_Authorization={token}; Secure; HttpOnly"})

    def _signature(self, body: str) -> str:
        return _base64(hmac.digest(self._secret, body.encode(), hashlib.sha256))


def team_json(device: dict[str, Any]) -> dict[str, Any]:
    """Return a device as an organisation's looks: what consumers have is absent."""
    absent = {"warp_enabled", "waitlist_enabled", "tos", "place", "enabled", "serial_number"}
    account = {
        "id": device["account"]["id"].replace("-", ""),
        "account_type": "team",
        "managed": "not_api_managed",
        "organization": TEAM,
    }
    policy = {"organization": TEAM, "auto_connect": 0, "switch_locked": False, **device.get("policy", {})}
    return {k: v for k, v in device.items() if k not in absent} | {"account": account, "policy": policy}


def _packed(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
