"""What is printed on the first run, and nowhere else: the details of the connection."""

import json
import logging

import pytest

from tests.fakes.world import FakeWorld
from tests.unit.servers import BLOCK, block_of, last, world

__all__ = ["world"]  # a fixture

pytestmark = pytest.mark.anyio


async def test_the_block_is_printed_on_the_first_run_only(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    first = await block_of(world, capsys, LOG_LEVEL="error")
    assert first.count(BLOCK) == 1
    password = json.loads((world.state / "shadowsocks.json").read_text())["password"]
    assert f"password  {password}" in first
    assert "host      198.51.100.7" in first
    assert "https://www.cloudflare.com/application/terms/" in first
    assert await block_of(world, capsys) == ""
    assert json.loads((world.state / "shadowsocks.json").read_text())["password"] == password


async def test_print_link_off_prints_nothing_and_then_neither_does_on(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await block_of(world, capsys, PRINT_LINK="off") == ""
    assert await block_of(world, capsys) == ""


async def test_a_new_account_for_kept_keys_prints_nothing(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert BLOCK in await block_of(world, capsys)
    (world.state / "account.json").unlink()
    assert await block_of(world, capsys) == ""
    assert len(world.http.api.devices) == 2


async def test_in_a_json_log_the_block_is_one_object(
    world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = await block_of(world, capsys, LOG_FORMAT="json", SHADOWSOCKS_PUBLIC_PORT="443")
    assert printed.count("\n") == 1
    assert "@198.51.100.7:443" in json.loads(printed)["message"]


async def test_no_secret_is_anywhere_but_in_the_block(
    world: FakeWorld, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    environ = {"SHADOWSOCKS_USERS": "alice,bob", "LOG_LEVEL": "debug"}
    for _ in range(2):
        async with world.serving(**environ):
            last(world).say("ERROR tcp handshake failed, peer: 192.0.2.7:4711, password: …")
            last(world).kill()
            engine = world.processes.engine()
            assert engine
            engine.kill()
            await world.clock.sleep(30)
            world.http.edge = False
            await world.clock.sleep(60)
            world.http.edge = True
            await world.clock.sleep(60)
    account = json.loads((world.state / "account.json").read_text())["account"]
    keys = json.loads((world.state / "shadowsocks.json").read_text())
    secrets = [
        account["private_key"],
        account["device"]["token"],
        account["device"]["account"]["license"],
        keys["password"],
        *keys["users"].values(),
    ]
    assert len(secrets) == len(set(secrets)) == 6
    started_with = [f"{child.program.argv} {child.program.environment}" for child in world.processes.children]
    written = [path.read_text() for path in (world.directory / "run").iterdir()]
    everything = "\n".join([caplog.text, *started_with, *written])
    assert "replacing the peer" in everything, "it has healed, so much was said"
    assert "192.0.2.7" not in everything, "nor who is a client"
    assert not [secret for secret in secrets if secret in everything]
    assert capsys.readouterr().out.count(keys["password"]) > 0
    kept = [path.stat().st_mode & 0o777 for path in world.state.glob("*.json")]
    assert set(kept) == {0o600}
