"""The client API: a table of calls, strict where the real one is, and a log of what it got."""

import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import anyio

from tests.cloudflare.access import Access, team_json
from tests.cloudflare.account_calls import AccountCalls
from tests.cloudflare.answers import Refused, headers
from tests.cloudflare.config import Config
from tests.cloudflare.devices import NEWER, Device, Devices, device_json, new_address6, usable_key
from tests.cloudflare.faults import Faults
from tests.cloudflare.limits import Budget
from tests.cloudflare.manners import Manners
from tests.cloudflare.seen import Call
from tests.cloudflare.spoiled import spoiled
from tests.cloudflare.web import Request, Response

VERSION = re.compile(r"/v0(?:(?P<kind>[ai])(?P<number>\d+))?/")


@dataclass(frozen=True, slots=True)
class Asked:
    """A call, taken apart: `kind` is the version's letter, `device` the one its token belongs to.

    `other` is a second device's id, where the path has one.
    """

    kind: str
    number: int
    body: Mapping[str, Any]
    device: Device | None
    team_token: str
    other: str = ""


type Answer = tuple[int, dict[str, Any] | list[Any] | None]
type Answering = Callable[[Asked], Awaitable[Answer]]
type AccountCall = Callable[[Device, Mapping[str, Any], str], Awaitable[Answer]]


class Api:
    """Answers calls; `changed` is awaited for every device that was added, removed or has a new key.

    `connected` says whether a device has had a session.
    """

    def __init__(
        self,
        config: Config,
        devices: Devices,
        changed: Callable[[Device], Awaitable[None]],
        connected: Callable[[Device], bool] = lambda _: False,
    ) -> None:
        self.budget, self.access, self.manners = Budget(), Access(), Manners()
        self.accounts = AccountCalls(devices, changed, connected)
        self._config, self._devices, self._changed = config, devices, changed
        self.faults = Faults()
        self.calls: list[Call] = []
        self._table: tuple[tuple[str, re.Pattern[str], Answering], ...] = (
            ("POST", re.compile(r"reg"), self._register),
            ("GET", re.compile(r"reg/(?P<id>[^/]+)"), self._read),
            ("PATCH", re.compile(r"reg/(?P<id>[^/]+)"), self._update),
            ("PUT", re.compile(r"reg/(?P<id>[^/]+)"), self._update),
            ("DELETE", re.compile(r"reg/(?P<id>[^/]+)"), self._delete),
            *((method, re.compile(path), self._about(call)) for method, path, call in self._account_table()),
            ("GET", re.compile(r"client_config"), self._client_config),
        )

    async def answer(self, request: Request) -> Response:
        """Answer one request; a fault may hit it."""
        body = await request.body()
        fault = self.faults.take(request.method, request.path)
        if fault and fault.delay:
            await anyio.sleep(fault.delay)
        response = Response(200)
        if not self.budget.spend(request.source):
            after = {"retry-after": self.budget.retry_after} if self.budget.retry_after else {}
            response = Response(429, b"Too Many Requests", headers("text/plain") | after)
            fault = None
        elif fault is None or fault.apply:
            response = await self._respond(request, body)
        if fault:
            response = spoiled(response, fault)
        self.calls.append(
            Call(
                time.time(),
                request.source,
                request.method,
                request.path,
                request.headers,
                body.decode(errors="replace"),
                0 if response.ending == "hang" else response.status,
            )
        )
        return response

    async def _respond(self, request: Request, body: bytes) -> Response:
        version = VERSION.match(request.path)
        bare = version is not None and version["kind"] == "a"
        try:
            status, result = await self._dispatch(request, version, body)
        except Refused as refused:
            return refused.response()
        if result is None:
            return Response(status, b"", headers())
        return self.manners.success(status, result, bare=bare)

    async def _dispatch(self, request: Request, version: re.Match[str] | None, body: bytes) -> Answer:
        self.manners.turn_away(request)
        rest = request.path.partition("?")[0][version.end() :] if version else ""
        for method, path, call in self._table:
            match = path.fullmatch(rest)
            if version and match and method == request.method:
                device = self._authorised(match["id"], request) if "id" in path.groupindex else None
                content = _content(request, body) if method in ("POST", "PUT", "PATCH") else {}
                token = request.headers.get("cf-access-jwt-assertion", "")
                kind, number = version["kind"] or "", int(version["number"] or 0)
                other = match["other"] if "other" in path.groupindex else ""
                return await call(Asked(kind, number, content, device, token, other))
        raise Refused(404, "404 page not found")

    def _authorised(self, identity: str, request: Request) -> Device:
        device = self._devices.get(identity)
        if device is None or not device.active or device.revoked:
            raise Refused(self.manners.gone, [{"code": 1000, "message": "Device not found"}])
        if request.headers.get("authorization") != f"Bearer {device.token}":
            raise Refused(401, [{"code": 1000, "message": "Unauthorized"}])
        return device

    def _shown(self, asked: Asked, device: Device) -> dict[str, Any]:
        newer = asked.kind != "a" or asked.number >= NEWER
        shown = device_json(device, self._config, self._devices.edge_public_key, newer=newer)
        return team_json(shown) if device.account_type == "team" else shown

    async def _register(self, asked: Asked) -> Answer:
        if "key" not in asked.body:
            raise Refused(400, ["Invalid registration request"])
        kind: dict[str, Any] = {}
        if asked.team_token:
            enrolled = [one for one in self._devices.all() if one.active and one.account_type == "team"]
            self.access.check(asked.team_token, len(enrolled))
            kind = {"account_type": "team", "id": f"t.{uuid.uuid4()}"}
        key = _key(asked.body)
        if self.manners.same_key == "refuse" and any(one.key == key for one in self._devices.all()):
            raise Refused(400, [{"code": 1001, "message": "Invalid public key"}])
        if self.manners.masque or asked.body.get("tunnel_type") == "masque":
            kind["tunnel_type"] = "masque"
        device = self._devices.add(key, dict(asked.body), **kind)
        await self._changed(device)
        return 200, self._shown(asked, device) | {"token": device.token}

    async def _read(self, asked: Asked) -> Answer:
        return 200, self._shown(asked, _known(asked))

    async def _update(self, asked: Asked) -> Answer:
        device = _known(asked)
        changes: dict[str, Any] = {"request": {**device.request, **asked.body}}
        if tunnel := asked.body.get("tunnel_type"):
            changes["tunnel_type"] = tunnel
        if "key" in asked.body and tunnel != "masque":
            changes["key"] = _key(asked.body)
            if self.manners.moves:
                changes["address6"] = new_address6()
        device = self._devices.change(device, **changes)
        await self._changed(device)
        return 200, self._shown(asked, device)

    async def _delete(self, asked: Asked) -> Answer:
        await self._changed(self._devices.change(_known(asked), active=False))
        return 204, None

    def revoke(self, key: str) -> None:
        """Take a licence back: its devices are free ones again."""
        self.accounts.licences.sold.pop(key, None)
        for device in self._devices.all():
            if device.license == key:
                self._devices.change(device, account_type="free")

    def _account_table(self) -> tuple[tuple[str, str, AccountCall], ...]:
        mine, calls = r"reg/(?P<id>[^/]+)/account", self.accounts
        other = rf"{mine}/reg/(?P<other>[^/]+)"
        return (
            ("GET", mine, calls.read),
            ("PUT", mine, calls.bind),
            ("DELETE", mine, calls.unbind),
            ("POST", f"{mine}/license", calls.new_license),
            ("GET", f"{mine}/devices", calls.mates),
            ("PATCH", other, calls.rename),
            ("DELETE", other, calls.remove),
        )

    def _about(self, call: AccountCall) -> Answering:
        async def called(asked: Asked) -> Answer:
            return await call(_known(asked), asked.body, asked.other)

        return called

    async def change(self, identity: str, changes: Mapping[str, Any]) -> None:
        """Change a device from outside: deleted in an app, revoked in a dashboard. Raises KeyError."""
        device = self._devices.get(identity)
        if device is None:
            raise KeyError(identity)
        await self._changed(self._devices.change(device, **changes))

    async def _client_config(self, _: Asked) -> Answer:
        quota = {"premium_data_bytes": 0, "referral_reward_bytes": 1_000_000_000}
        return 200, {**quota, "captive_portal": [], "denylist": []}


def _known(asked: Asked) -> Device:
    assert asked.device is not None, "the table's path has no id"
    return asked.device


def _key(body: Mapping[str, Any]) -> str:
    if not usable_key(body["key"]):
        raise Refused(400, [{"code": 1001, "message": "Invalid public key"}])
    return str(body["key"])


def _content(request: Request, body: bytes) -> Mapping[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        content = json.loads(body) if kind == "application/json" else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Refused(400, ["Invalid registration request"])
    return content


def calls_json(calls: list[Call]) -> list[dict[str, Any]]:
    """Return the log as JSON can carry it."""
    return [asdict(one) for one in calls]
