"""A state directory, time, and the API that a container with this directory would talk to."""

import json
import stat
from pathlib import Path
from typing import Any

import anyio.lowlevel
import httpx

from entrypoint.account.api import WarpApi
from entrypoint.account.lifecycle import load_or_register
from entrypoint.account.model import Account, public_key
from entrypoint.account.registration import AccountWishes
from entrypoint.account.store import StoredAccount
from entrypoint.addresses import Address
from entrypoint.linux.state_dir import lock
from tests.fakes.http import API, DNS, FakeHttp, Holes
from tests.fakes.warp_api import FakeApi

HOST = "api.cloudflareclient.com"
START = 1_767_322_845.25


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self, now: float = START) -> None:
        self.now = now
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()


class Box:
    """A state directory and the API that its container would talk to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "account.json"
        self.site = FakeApi()
        self.site.on_call = self.look
        self.holes = Holes()
        self.http = FakeHttp({API: self.site}, {DNS: {HOST: [API]}}, self.holes)
        self.clock = FakeClock()
        self.told: list[tuple[str, float]] = []
        self.wishes = AccountWishes("lab")
        self.remembers = False
        self.own: tuple[Address, ...] = ()
        self.url = f"https://{HOST}"

    def look(self, request: httpx.Request) -> None:
        """Before any POST: the key it sends is already on the volume, readable by its owner only."""
        if request.method != "POST":
            return
        stored = json.loads(self.path.read_bytes())
        kept = stored.get("pending") or stored["replacement"]
        assert json.loads(request.content)["key"] == public_key(kept["private_key"])
        assert stat.S_IMODE(self.path.stat().st_mode) == 0o600

    @property
    def api(self) -> WarpApi:
        return WarpApi(
            http=self.http,
            clock=self.clock,
            reach=self.holes.reach,
            servers=(DNS,),
            mark=0x1000,
            base_url=self.url,
            memory=self.directory / "addresses.json" if self.remembers else None,
        )

    async def start(self) -> Account:
        return (await self.ready()).account

    async def ready(self) -> StoredAccount:
        with lock(self.directory):
            return await load_or_register(
                self.directory,
                self.api,
                self.clock,
                own=self.own,
                wishes=self.wishes,
                waiting=lambda reason, seconds: self.told.append((reason, seconds)),
            )

    def kept(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.path.read_bytes())
        return content

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir() if path.name != "lock")
