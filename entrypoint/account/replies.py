"""What the API's replies mean: a device, or why there is none and when to call again.

Successes come bare or wrapped in `{"result": …, "success": true}`, depending on the path's version; errors
always come as `{"success": false, "errors": [{"code": …, "message": …}]}`, or with plain strings in the
list. Whatever else answers (a firewall rule, a captive portal, a retired path) sends text or HTML.
"""

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from entrypoint.errors import UnhealableError
from entrypoint.linux.http import certificate_error, is_misdated
from entrypoint.strict_json import InvalidError, JsonValue, parse_json

UNCERTAIN = 60.0
"""Seconds before a second try when the first may have created a device; the API counts calls a minute."""

LONGEST = 3600.0
"""Seconds that a Retry-After is obeyed at most."""


class ApiError(UnhealableError):
    """A call failed. `again`: seconds before the same call may be retried, None when that cannot help.

    0 means that the request was not sent. `status` is the HTTP status, None without an answer; `code`
    Cloudflare's own number; `envelope`: the API itself answered, in its own JSON.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        again: float | None = None,
        status: int | None = None,
        code: int | None = None,
        envelope: bool = False,
    ) -> None:
        super().__init__(message, hint)
        self.again = again
        self.status = status
        self.code = code
        self.envelope = envelope

    @property
    def gone(self) -> bool:
        """The API itself says that it does not know this device and token. A 403 says so of no device."""
        return self.envelope and self.status in (401, 404, 410)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer of `host`; `retry_after` and `location` are those headers, empty without one."""

    host: str
    status: int
    body: bytes = field(repr=False)
    retry_after: str = ""
    location: str = field(default="", repr=False)
    cookies: tuple[str, ...] = field(default=(), repr=False)


def device_in(reply: Reply, now: float) -> JsonValue:
    """Return the device object, bare or wrapped, unread. Raises ApiError. `now` is seconds since 1970."""
    members = accepted(reply, now)
    result = members.get("result", members)
    device = result[0] if isinstance(result, list) and result else result
    if isinstance(device, dict) and device:
        return JsonValue(device)
    raise ApiError(f"{reply.host} answered {reply.status} without a device", _PORTAL, again=UNCERTAIN)


def accepted(reply: Reply, now: float) -> Mapping[str, object]:
    """Return the answer's object, empty when it has none: the call was carried out. Raises ApiError."""
    status = reply.status
    try:
        answer = parse_json(reply.body).value if reply.body.strip() else {}
    except InvalidError:
        answer = None
    members = answer if isinstance(answer, dict) else {}
    envelope = members.get("success") is False
    if 200 <= status < 300 and answer is not None and not envelope:
        return members
    text, code = _complaint(members, reply.body)
    words = f"{reply.host} answered {_phrase(status)}{text and ': '}{text}{f' (code {code})' if code else ''}"
    if 200 <= status < 300 and not envelope:
        words = f"{reply.host} answered {status} without a device"
    wait = _seconds(reply.retry_after, now)
    again: float | None = None
    hint = ""
    match status:
        case 429:
            again, hint = wait or UNCERTAIN, "the API limits calls per address"
        case 403:
            hint = "this address may be blocked: try the other IP version, or another server"
        case _ if 300 <= status < 400 or (status < 300 and not envelope):
            again, hint = UNCERTAIN, _PORTAL
        case _ if status == 408 or status < 300 or status >= 500:
            again = max(UNCERTAIN, wait or 0)
        case _ if not envelope:
            hint = _PORTAL
    raise ApiError(words, hint, again=again, status=status, code=code, envelope=envelope)


def unanswered(host: str, error: Exception, again: float) -> ApiError:
    """Return why there is no answer of `host`."""
    if refused := certificate_error(error):
        return ApiError(
            f"cannot trust the certificate of {host}: {one_line(refused.verify_message)}",
            "check this machine's clock"
            if is_misdated(refused)
            else "for a mirror, set WARP_API_CA_FILE to its CA",
            again=again,
        )
    reason = "no answer in time" if isinstance(error, TimeoutError) else one_line(str(error))
    hint = "the call may have been carried out anyway" if again else ""
    return ApiError(f"cannot reach {host}: {reason or type(error).__name__}", hint, again=again)


_PORTAL = "something on the way may be answering in place of Cloudflare"


def _complaint(members: Mapping[str, object], body: bytes) -> tuple[str, int | None]:
    """Return the server's message and code: the first of `errors`, of either kind, else a plain text."""
    match members.get("errors"):
        case [{"message": str(message), "code": int(code)}, *_] if 0 < code < 1_000_000:
            return one_line(message), code
        case [str(message) | {"message": str(message)}, *_]:
            return one_line(message), None
    text = body[:1000].decode(errors="replace")
    return "" if members or text.lstrip()[:1] in "<{[" else one_line(text), None


def one_line(text: str) -> str:
    """Return `text` as one short line that cannot steer a terminal."""
    printable = "".join(character if character.isprintable() else " " for character in text[:1000])
    return " ".join(printable.split())[:200]


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _seconds(retry_after: str, now: float) -> float | None:
    """Return a Retry-After (RFC 9110 10.2.3) in seconds, 1 to LONGEST; None when it says nothing usable."""
    if retry_after.isascii() and retry_after.isdecimal():
        return min(max(float(retry_after[:12]), 1.0), LONGEST)
    try:
        moment = email.utils.parsedate_to_datetime(retry_after).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(moment - now, 1.0), LONGEST)
