"""What can go wrong with an answer of the API: values, the queue of them, and how they change an answer."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

REMOVED = "\0removed"
"""As a value of `override`: the field is missing."""

type Ending = Literal["whole", "truncated", "reset", "hang", "stall", "drip"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. It hits calls whose method is `method` (any when empty) and whose path matches `path`.

    `apply`: the call is carried out all the same, only its answer is lost. `status`, `body` and `headers`
    replace the answer's when given. `values` overrides fields of the answered JSON object: keys are paths
    such as `config.peers.0.endpoint.v4`, below `result` when the answer is wrapped. `ending`: truncated
    closes after half the body, reset does that with a TCP reset, hang never answers, stall never ends the
    body, drip sends a byte of it a second. `zeros`: so many bytes of them, `packed` by gzip.
    `delay` in seconds.
    `times`: how many calls it hits; None, all until it is cleared.
    """

    method: str = ""
    path: str = ""
    apply: bool = True
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    ending: Ending = "whole"
    zeros: int = 0
    packed: bool = False
    delay: float = 0.0
    times: int | None = 1

    def matches(self, method: str, path: str) -> bool:
        """Say whether it hits this call."""
        return self.method in ("", method) and re.search(self.path, path) is not None

    def only(self, method: str = "", path: str = "", times: int | None = 1) -> "Fault":
        """Return it for these calls only, `times` of them."""
        return replace(self, method=method, path=path, times=times)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON can carry it."""
        return asdict(self)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Fault":
        """Read what `plain` returned. Raises TypeError for unknown fields."""
        names = {one.name for one in fields(cls)}
        if raw.keys() - names:
            raise TypeError(f"no such field: {', '.join(sorted(raw.keys() - names))}")
        return cls(**raw)


def status(code: int, body: str | None = "", **headers: str) -> Fault:
    """Nothing is done; the answer has this code, text body and headers (`retry_after` = Retry-After)."""
    return Fault(
        apply=False,
        status=code,
        body=body,
        headers={"content-type": "text/plain"} | {k.replace("_", "-"): v for k, v in headers.items()},
    )


def too_many(retry_after: str = "") -> Fault:
    """429, with Retry-After when given."""
    return status(429, "Too Many Requests", **({"retry_after": retry_after} if retry_after else {}))


def created_but_500() -> Fault:
    """The call is carried out, the answer is 500."""
    return Fault(status=500, body='{"result":null,"success":false,"errors":[],"messages":[]}')


def garbage() -> Fault:
    """200 with bytes that are no JSON."""
    return Fault(apply=False, status=200, body="\x01\x7f~}{not json\x00")


def truncated() -> Fault:
    """The connection closes after half of the announced body; the call is carried out."""
    return Fault(ending="truncated")


def html() -> Fault:
    """200 with a web page, as captive portals and block pages do."""
    page = "<!DOCTYPE html><html><body>Attention Required! | Cloudflare</body></html>"
    return Fault(apply=False, status=200, body=page, headers={"content-type": "text/html"})


def empty() -> Fault:
    """200 without a body."""
    return Fault(apply=False, status=200, body="")


def hang(apply: bool = False) -> Fault:
    """Never answered; the connection stays open."""
    return Fault(apply=apply, ending="hang")


def reset(apply: bool = True) -> Fault:
    """TCP reset in the middle of the answer; by default the call is carried out."""
    return Fault(apply=apply, ending="reset")


def stall() -> Fault:
    """Half of the announced body, then silence; the call is carried out."""
    return Fault(ending="stall")


def drip() -> Fault:
    """One byte of the body a second; the call is carried out."""
    return Fault(ending="drip")


def huge(size: int = 1 << 30) -> Fault:
    """As many bytes of nothing."""
    return Fault(apply=False, zeros=size)


def bomb(size: int = 1 << 27) -> Fault:
    """The same, packed by gzip: a thousandth of it on the wire."""
    return Fault(apply=False, zeros=size, packed=True)


def elsewhere(url: str) -> Fault:
    """302 to this address."""
    return status(302, location=url)


def override(values: Mapping[str, Any]) -> Fault:
    """The call is carried out and its answer has these fields changed: `{"config.client_id": REMOVED}`."""
    return Fault(values=values)


def wrong_types() -> Fault:
    """Numbers, lists and nulls where strings and objects belong."""
    return override({"id": 7, "token": ["x"], "config.peers": {"0": None}, "config.interface.addresses": 3})


class Faults:
    """The queue. The first that matches a call hits it, and is used up after `times` calls."""

    def __init__(self) -> None:
        self._queue: list[Fault] = []

    def add(self, *faults: Fault) -> None:
        """Append."""
        self._queue.extend(faults)

    def clear(self) -> None:
        """Forget all."""
        self._queue.clear()

    def waiting(self) -> list[Fault]:
        """Return what has not hit yet."""
        return list(self._queue)

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault that hits this call, if any, and count it."""
        for index, fault in enumerate(self._queue):
            if not fault.matches(method, path):
                continue
            if fault.times == 1:
                del self._queue[index]
            elif fault.times is not None:
                self._queue[index] = replace(fault, times=fault.times - 1)
            return fault
        return None


def overridden(body: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the JSON object with the paths changed; a path that leads nowhere is an error.

    Raises KeyError, IndexError, TypeError for such a path: a fault that changes nothing proves nothing.
    """
    out: dict[str, Any] = _copied(body)
    for path, value in values.items():
        *way, last = path.split(".")
        spot: Any = out
        for step in way:
            spot = spot[int(step)] if isinstance(spot, list) else spot[step]
        key: Any = int(last) if isinstance(spot, list) else last
        if value == REMOVED:
            del spot[key]
        else:
            spot[key] = value
    return out


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value
