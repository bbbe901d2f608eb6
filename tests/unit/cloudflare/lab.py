"""The emulated API without a socket, and the keys and headers its tests send."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tests.cloudflare.api import Api
from tests.cloudflare.config import Config
from tests.cloudflare.devices import Device, Devices
from tests.cloudflare.web import Request, Response

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(1, 33))).decode()
JSON = {"content-type": "application/json; charset=UTF-8"}


class Lab:
    """An API in a directory, with a note of what it told the edge."""

    def __init__(self, state: Path) -> None:
        self.told: list[Device] = []
        self.devices = Devices(state)
        self.api = Api(Config(state, "none"), self.devices, self._tell)

    async def _tell(self, device: Device) -> None:
        self.told.append(device)

    async def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] = JSON
    ) -> tuple[int, Any]:
        """Return status and body: JSON where it says so, else text."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        request = Request(method, path, dict(headers), "203.0.113.7", 1, "104.16.192.82", "TLSv1.3", chunks())
        answer: Response = await self.api.answer(request)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(answer.body) if is_json else answer.body.decode()


CONFIG = Config(Path("/nowhere"), "eth0", published=(ip_address("10.9.0.2"), ip_address("fd00::2")))
