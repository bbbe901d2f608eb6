"""How API and Access behave where the real ones differ by version, place or luck."""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Final, Literal

from tests.cloudflare.answers import Refused, as_json, envelope
from tests.cloudflare.web import Request, Response

type Envelope = Literal["by version", "bare", "wrapped", "list"]

FINGERPRINT: Final = "error code: 1020"


@dataclass(frozen=True, slots=True)
class Manners:
    """`envelope`: of successes (A4). `only_tls12`: a hello that may be TLS 1.3 gets 403 (A2).

    `strict_headers`: 403 without User-Agent and CF-Client-Version (A7). `same_key`: whether a second
    device may have a key (A9). `gone`: the status for a device that is deleted or revoked (A11).
    `blocked`: networks that get 403 (A17). `moves`: a new key brings another IPv6 (A23).
    `masque`: the organisation's policy, or Cloudflare, demands it: no WireGuard for new devices (A24, T7).
    """

    envelope: Envelope = "by version"
    only_tls12: bool = False
    strict_headers: bool = False
    same_key: Literal["accept", "refuse"] = "accept"
    gone: int = 404
    blocked: tuple[str, ...] = ()
    moves: bool = False
    masque: bool = False

    def turn_away(self, request: Request) -> None:
        """Raise Refused for whom the front does not let in."""
        known = {"user-agent", "cf-client-version"} <= request.headers.keys()
        source = ip_address(request.source)
        if any(source in ip_network(one) for one in self.blocked):
            raise Refused(403, FINGERPRINT)
        if (self.only_tls12 and request.tls == "TLSv1.3") or (self.strict_headers and not known):
            raise Refused(403, FINGERPRINT)

    def success(self, status: int, result: Any, *, bare: bool) -> Response:
        """Return a success in its envelope; `bare` is the version's custom."""
        match self.envelope:
            case "bare":
                return as_json(status, result)
            case "list":
                return as_json(status, envelope([result], []))
            case "by version" if bare:
                return as_json(status, result)
            case _:
                return as_json(status, envelope(result, []))
