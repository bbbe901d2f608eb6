"""WEBHOOK_URL from one end to the other: the chain on the fake world, and a server that is posted to."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest

from entrypoint.linux.world import Bound, Marked
from tests.fakes.world import RESOLVERS, FakeWorld
from tests.unit.health.monitor_bench import quiet_httpx

__all__ = ["quiet_httpx"]  # a fixture
pytestmark = pytest.mark.anyio
HOOK = ip_address("203.0.113.99")


@dataclass
class Hook:
    """A server: what it got, how it came, and how often it fails first."""

    got: list[tuple[Any, httpx.Request]] = field(default_factory=list)
    failures: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.failures:
            self.failures -= 1
            return httpx.Response(503)
        self.got.append((request.extensions["way"], request))
        return httpx.Response(204)

    def words(self) -> list[str]:
        return [json.loads(request.content)["health"] for _, request in self.got]


@asynccontextmanager
async def posting(
    tmp_path: Path, url: str = "https://hook.example/secret"
) -> AsyncIterator[tuple[FakeWorld, Hook]]:
    world, hook = FakeWorld(tmp_path), Hook()
    world.http.sites[HOOK] = hook
    for server in RESOLVERS:
        world.http.dns[server] |= {"hook.example": [HOOK], "ntfy.example": [HOOK]}
    async with world.serving(WEBHOOK_URL=url):
        yield world, hook


async def wait(world: FakeWorld, hook: Hook, posts: int, seconds: float = 60) -> None:
    end = world.clock.now + seconds
    while len(hook.got) < posts and world.clock.now < end:
        await world.clock.sleep(0.5)
    assert len(hook.got) >= posts


async def test_each_change_is_posted_through_the_tunnel_while_there_is_one(tmp_path: Path) -> None:
    async with posting(tmp_path) as (world, hook):
        await wait(world, hook, 1)
        before = len(hook.got)
        world.http.edge = False
        await wait(world, hook, before + 1)
        world.http.edge = True
        await wait(world, hook, before + 2)
        assert hook.words()[before:] == ["healing", "connected"]
        (outside, _), (inside, request) = hook.got[before:]
        assert isinstance(outside, Marked), "without a tunnel through a hole in the firewall"
        assert inside == Bound("wg0")
        said = json.loads(request.content)
        assert (said["healthy"], said["previous"]) == (True, "healing")
        assert request.headers["Content-Type"] == "application/json"


async def test_a_server_that_fails_gets_the_message_later(tmp_path: Path) -> None:
    async with posting(tmp_path) as (world, hook):
        await wait(world, hook, 1)
        before, hook.failures = len(hook.got), 2
        world.http.edge = False
        begun = world.clock.now
        await wait(world, hook, before + 1, 90)
        assert hook.words()[before] == "healing"
        assert world.clock.now - begun > 35


async def test_a_message_that_never_arrives_is_dropped_with_one_line_that_hides_the_url(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with posting(tmp_path) as (world, hook):
        await wait(world, hook, 1)
        hook.failures = 4
        world.http.edge = False
        await world.clock.sleep(200)
        assert hook.failures == 0
        said = [line for line in caplog.messages if "WEBHOOK_URL" in line]
        assert len(said) == 1
        assert "secret" not in caplog.text


async def test_ntfy_gets_text_and_a_priority(tmp_path: Path) -> None:
    async with posting(tmp_path, "https://ntfy.example/topic") as (world, hook):
        await wait(world, hook, 1)
        before = len(hook.got)
        world.http.edge = False
        await wait(world, hook, before + 1)
        _, request = hook.got[before]
        assert (request.headers["Title"], request.headers["Priority"]) == ("ss-warp: healing", "high")
        assert request.content.decode().startswith("no answer through wg0 (was ")
