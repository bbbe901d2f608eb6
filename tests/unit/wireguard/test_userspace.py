"""The engine on its persistent TUN: started, killed, deleted, configured, ended."""

import logging
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest

from entrypoint.addresses import Endpoint
from entrypoint.errors import PlatformError
from entrypoint.linux.kernel_objects import Stats
from entrypoint.wireguard.userspace import encode_uapi
from tests.fakes.bench import CONFIG, KEY, Bench, bench_in

OTHER = replace(CONFIG, endpoint=Endpoint(ip_address("162.159.192.1"), 500))


@pytest.fixture
def bench(tmp_path: Path, anyio_backend: str) -> Bench:
    return bench_in(tmp_path)


@pytest.mark.anyio
async def test_the_engine_runs_on_a_tun_of_ours_with_the_configuration(bench: Bench) -> None:
    async with bench.kept() as device:
        engine = bench.engine()
        assert engine.program.argv == ["ss-warp-wireguard", "-f", "wg0"]
        assert engine.program.environment == {"WG_RESERVED": "", "WG_JUNK": ""}
        assert engine.requests == [encode_uapi(CONFIG)]
        assert bench.links.log[0] == "ip tuntap add dev wg0 mode tun vnet_hdr"
        assert KEY not in " ".join([*engine.program.argv, *engine.program.environment.values()])
        engine.handshake, engine.rx_bytes, engine.tx_bytes = 1_800_000_000, 92, 148
        assert await device.stats() == Stats(1_800_000_000, 92, 148)
    assert bench.processes.alive() == []
    assert list(bench.links.links) == ["lo"]


@pytest.mark.anyio
async def test_a_killed_engine_is_started_again_on_the_same_link(bench: Bench) -> None:
    async with bench.kept() as device:
        await device.configure(OTHER)
        before = bench.links.links["wg0"]
        for _ in range(20):
            killed = bench.clock.now
            bench.engine().kill()
            await bench.clock.sleep(0.1)
            assert bench.engine().requests == [encode_uapi(OTHER)]
            assert bench.links.links["wg0"] == before
            assert bench.clock.now - killed <= 0.2
        assert bench.reports == ["restarted"] * 20


@pytest.mark.anyio
async def test_a_deleted_link_is_reported_and_recreated_on_demand(bench: Bench) -> None:
    async with bench.kept() as device:
        old = bench.links.links["wg0"].index
        bench.links.delete("wg0")
        await bench.clock.sleep(0.1)
        assert bench.reports == ["gone"]
        assert bench.processes.engine() is None
        await bench.clock.sleep(60)
        assert bench.processes.engine() is None
        await device.recreate()
        assert bench.links.links["wg0"].index != old
        assert bench.engine().requests == [encode_uapi(CONFIG)]
        bench.engine().kill()
        await bench.clock.sleep(0.1)
        assert bench.engine().requests == [encode_uapi(CONFIG)]
        assert bench.reports == ["gone", "restarted"]


@pytest.mark.anyio
async def test_recreating_a_live_device_is_not_taken_for_a_death(bench: Bench) -> None:
    async with bench.kept() as device:
        await device.recreate()
        await bench.clock.sleep(1)
        assert bench.reports == []
        assert len(bench.processes.children) == 2
        assert len(bench.processes.alive()) == 1


@pytest.mark.anyio
async def test_killed_while_being_recreated(bench: Bench) -> None:
    async with bench.kept() as device, anyio.create_task_group() as tasks:
        for _ in range(10):
            bench.engine().kill()
            tasks.start_soon(device.recreate)
            await bench.clock.sleep(1)
            assert bench.engine().requests == [encode_uapi(CONFIG)]
            assert len(bench.processes.alive()) == 1


@pytest.mark.anyio
async def test_an_engine_that_does_not_come_up_again_is_tried_for_ever_and_said_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.kept():
        bench.processes.refuse["ss-warp-wireguard"] = "no such thing"
        bench.engine().kill()
        await bench.clock.sleep(60)
        (said,) = caplog.records
        assert "no such thing" in said.message
        assert 10 <= len(bench.processes.children) <= 26
        del bench.processes.refuse["ss-warp-wireguard"]
        await bench.clock.sleep(6)
        assert bench.engine().requests == [encode_uapi(CONFIG)]
        assert bench.reports == ["restarted"]


@pytest.mark.anyio
async def test_configured_while_dead_it_starts_with_the_latest(bench: Bench) -> None:
    async with bench.kept() as device:
        bench.processes.refuse["ss-warp-wireguard"] = "not now"
        bench.engine().kill()
        await bench.clock.sleep(1)
        with pytest.raises(OSError):
            await device.configure(OTHER)
        del bench.processes.refuse["ss-warp-wireguard"]
        await bench.clock.sleep(6)
        assert bench.engine().requests == [encode_uapi(OTHER)]


@pytest.mark.anyio
async def test_a_refused_configuration_is_an_error(bench: Bench) -> None:
    async with bench.kept() as device:
        with pytest.raises(OSError, match="rejected"):
            await device.configure(replace(CONFIG, peer_public_key="AAAA"))
        with pytest.raises(OSError, match="rejected"):
            await device.recreate()
        assert bench.processes.alive() == []


@pytest.mark.anyio
async def test_an_engine_that_never_comes_up_is_named_with_its_last_words(bench: Bench) -> None:
    bench.processes.refuse["ss-warp-wireguard"] = "exec format error"
    with pytest.raises(PlatformError, match="exec format error") as caught:
        async with bench.kept():
            pass
    assert caught.value.exit_code == 77
    assert list(bench.links.links) == ["lo"]


@pytest.mark.anyio
async def test_what_the_engine_says_is_for_debugging(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with bench.kept():
        bench.engine().say("ERROR: (wg0) something")
        await bench.clock.sleep(0.1)
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.DEBUG, "ss-warp-wireguard: ERROR: (wg0) something")


@pytest.mark.anyio
@pytest.mark.parametrize("turns", range(0, 120, 3))
async def test_stopped_at_any_moment_nothing_is_left(bench: Bench, turns: int) -> None:
    async def run() -> None:
        async with bench.kept() as device:
            await device.recreate()
            bench.engine().kill()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert list(bench.links.links) == ["lo"]
    assert bench.processes.alive() == []
