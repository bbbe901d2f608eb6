"""What clients need to connect: the block of the first run, and when it is printed."""

import logging
from typing import Any

import httpx
import pytest

from entrypoint.client_details import TERMS, first_run, load_or_generate
from entrypoint.linux.world import Bound
from entrypoint.settings import load
from shadowsocks.credentials import METHODS, RequestedUser, SavedKeys, credentials
from shadowsocks.links import entries, link, qr
from tests.fakes.http import Site
from tests.fakes.world import RESOLVERS, FakeWorld
from tests.unit.servers import BLOCK, block_of, world

__all__ = ["world"]  # a fixture

AES = METHODS["2022-blake3-aes-128-gcm"]


def test_the_block_has_all_that_a_client_needs() -> None:
    found, _ = credentials(AES, None, (), SavedKeys())
    block = first_run("198.51.100.7", load({}), found)
    (entry,) = entries("198.51.100.7", 8388, found)
    uri = link(entry)
    for part in ("198.51.100.7", "8388", AES.name, found.password, uri, qr(uri), TERMS):
        assert part in block
    assert link(entry, base64=True) in block, "for Android"
    assert block.splitlines()[0] == block.splitlines()[-1] == "─" * 72


def test_the_block_has_the_links_of_each_user() -> None:
    found, _ = credentials(AES, None, [RequestedUser("alice"), RequestedUser("bob")], SavedKeys())
    block = first_run("vps.example", load({}), found)
    assert block.count("ss://") == 4
    for user in found.users:
        assert f"{found.password}:{user.key}" in block
        assert block.count(f"#ss-warp-{user.name}") == 2


@pytest.mark.anyio
async def test_the_block_is_printed_until_it_was_printed(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first start that could not connect has generated keys that were never shown."""
    load_or_generate(world.settings())
    assert BLOCK in await block_of(world, capsys)
    assert BLOCK not in await block_of(world, capsys)


@pytest.mark.anyio
async def test_a_new_password_is_logged_with_the_command_that_shows_it(
    world: FakeWorld, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    await block_of(world, capsys)

    async def said(**environ: str) -> list[str]:
        caplog.clear()
        assert BLOCK not in await block_of(world, capsys, **environ)
        return [line for line in caplog.messages if "generated" in line]

    longer = {"SHADOWSOCKS_METHOD": "2022-blake3-aes-256-gcm"}
    (line,) = await said(**longer)
    assert "ss-warp link" in line
    assert await said() == await said(**longer) == [], "each method keeps its own"
    (line,) = await said(SHADOWSOCKS_USERS="alice")
    assert "key for alice" in line


def only_inside(site: Site) -> Site:
    """Answer what comes through the tunnel alone."""

    def answer(request: httpx.Request) -> Any:
        if not isinstance(request.extensions["way"], Bound):
            raise httpx.ConnectError("Connection refused")
        return site(request)

    return answer


@pytest.mark.anyio
async def test_a_private_address_is_never_printed_as_the_servers(
    world: FakeWorld, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    for server in RESOLVERS:
        world.http.sites[server] = only_inside(world.http.sites[server])
    assert await block_of(world, capsys) == ""
    assert any("SHADOWSOCKS_PUBLIC_HOST" in line for line in caplog.messages)
    assert BLOCK in await block_of(world, capsys, SHADOWSOCKS_PUBLIC_HOST="vps.example"), "once it is known"
