"""A WARP API that behaves: strict, with state, a log of its calls, and faults by script."""

import base64
import json
import re
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

EDGE_KEY = base64.b64encode(bytes(range(1, 33))).decode()


@dataclass(frozen=True)
class Fault:
    """What the API does instead: an answer or an exception; `created`: it has carried the call out before.

    It hits the next call, or the next with this `method`.
    """

    answer: httpx.Response | Exception
    created: bool = False
    method: str = ""


class FakeApi:
    """The WARP API: state, a log of calls, scripted faults for the next calls."""

    def __init__(self) -> None:
        self.devices: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.keys: list[str] = []
        self.faults: deque[Fault] = deque()
        self.licences: dict[str, str | dict[str, Any]] = {}
        """By key: the account type it gives, or the error (an entry of `errors`) it is refused with."""
        self.lists_put = True
        """Whether PUT is a method for a device; PATCH always is."""
        self.masque_only = False
        """Whether a device that uses MASQUE has to go on with it."""
        self.gone = 404
        """What is answered for a device that is not known."""
        self.alter: Callable[[dict[str, Any]], Any] = lambda device: device
        self.on_call: Callable[[httpx.Request], None] = lambda request: None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append((request.method, request.url.path))
        self.on_call(request)
        fault = next((one for one in self.faults if one.method in ("", request.method)), None)
        if fault:
            self.faults.remove(fault)
        if fault and not fault.created:
            return _act(fault)
        answer = self._answer(request)
        return _act(fault) if fault else answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and re.fullmatch(r"/v0[ai]\d+/client_config", request.url.path):
            return httpx.Response(200, json={"premium_data_bytes": 0, "captive_portal": [], "denylist": []})
        path = re.fullmatch(r"/v0[ai]\d+/reg(?:/([^/]+)(/account)?)?", request.url.path)
        if not path:
            return httpx.Response(404, text="404 page not found")
        if request.method == "POST" and path[1] is None:
            return self._register(request)
        device = self.devices.get(path[1] or "")
        if device is None:
            return refusal(self.gone, "device not found")
        if request.headers.get("Authorization") != f"Bearer {device['token']}":
            return refusal(401, "unauthorized")
        match request.method, bool(path[2]):
            case "GET", False:
                pass
            case "PUT" | "PATCH", False if self.lists_put or request.method == "PATCH":
                body = json.loads(request.content)
                device["key"] = body["key"]
                self.keys.append(device["key"])
                if "tunnel_type" in body and not self.masque_only:
                    device |= {"tunnel_type": body["tunnel_type"], "policy": {}}
            case "DELETE", False:
                del self.devices[device["id"]]
                return httpx.Response(204)
            case "PUT", True:
                return self._bind(device, json.loads(request.content)["license"])
            case _:
                return httpx.Response(404, text="404 page not found")
        shown = self.alter(json.loads(json.dumps(device)))
        return httpx.Response(200, json={k: v for k, v in shown.items() if k != "token"})

    def _bind(self, device: dict[str, Any], key: str) -> httpx.Response:
        kind = self.licences.get(key, {"code": 1000, "message": "Invalid license"})
        if isinstance(kind, dict):
            return refusal(400, kind)
        device["account"] |= {"id": str(uuid.uuid4()), "account_type": kind, "license": key}
        # Without account_type and license.
        return httpx.Response(
            200, json={"id": device["account"]["id"], "created": "0001-01-01T00:00:00Z", "warp_plus": True}
        )

    def _register(self, request: httpx.Request) -> httpx.Response:
        if not request.headers.get("User-Agent", "").startswith(("okhttp/", "WARP for Android")):
            return httpx.Response(403, text="error code: 1020")
        if request.headers.get("Content-Type", "").split(";")[0] != "application/json":
            return refusal(415, "json wanted")
        try:
            body = json.loads(request.content)
            key = base64.b64decode(body["key"], validate=True)
        except (ValueError, KeyError, TypeError):
            return refusal(400, "Invalid registration request")
        if len(key) != 32:
            return refusal(400, {"code": 1001, "message": "Invalid public key"})
        self.keys.append(body["key"])
        device = device_object(key=body["key"], tos=body.get("tos", ""), name=body.get("name", ""))
        self.devices[device["id"]] = device
        return httpx.Response(200, json=self.alter(json.loads(json.dumps(device))))


def _act(fault: Fault) -> httpx.Response:
    if isinstance(fault.answer, Exception):
        raise fault.answer
    return fault.answer


def refusal(status: int, error: object, headers: dict[str, str] | None = None) -> httpx.Response:
    """An error as the API wraps it; `error` is an entry of `errors`, an object or a string."""
    body = {"result": None, "success": False, "errors": [error], "messages": []}
    return httpx.Response(status, json=body, headers=headers)


def device_object(key: str, tos: str = "", name: str = "") -> dict[str, Any]:
    """A device as a registration returns it, with invented values."""
    return {
        "id": str(uuid.uuid4()),
        "type": "a",
        "model": "PC",
        "name": name,
        "key": key,
        "account": {
            "id": str(uuid.uuid4()),
            "account_type": "free",
            "warp_plus": True,
            "license": "Ab12Cd34-Ef56Gh78-Ij90Kl12",
        },
        "config": {
            "client_id": "AQID",
            "peers": [
                {
                    "public_key": EDGE_KEY,
                    "endpoint": {
                        "v4": "162.159.192.6:0",
                        "v6": "[2606:4700:d0::a29f:c006]:0",
                        "host": "engage.cloudflareclient.com:2408",
                    },
                }
            ],
            "interface": {"addresses": {"v4": "172.16.0.2", "v6": "2606:4700:110:8abc:1234:5678:9abc:def0"}},
            "services": {"http_proxy": "172.16.0.1:2480"},
        },
        "token": str(uuid.uuid4()),
        "warp_enabled": False,
        "tos": tos,
        "place": 0,
        "locale": "en-US",
        "enabled": True,
    }
