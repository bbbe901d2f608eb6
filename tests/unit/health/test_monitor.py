"""Connecting, watching and healing, in virtual time, against a tunnel that behaves."""

import logging
from ipaddress import ip_address

import anyio
import pytest

from entrypoint.health.ladder import Rung
from entrypoint.health.probe import Trace
from entrypoint.health.triggers import Trigger
from entrypoint.health.verdict import Alive, Degraded, Foreign, Silent
from tests.unit.health.monitor_bench import ENDPOINTS, Bench, bench, quiet_httpx, watching

__all__ = ["bench", "quiet_httpx"]  # fixtures

pytestmark = pytest.mark.anyio


async def test_connecting_returns_the_first_trace_from_warp(bench: Bench) -> None:
    begun = bench.clock.now
    assert isinstance(await bench.monitor.connect(), Alive)
    trace = next(what for _, what in bench.events.seen if isinstance(what, Trace))
    assert (trace.warp, trace.colo, trace.loc) == ("on", "FRA", "DE")
    assert bench.clock.now - begun < 0.1
    assert bench.edge.configured == []


async def test_old_suspicions_do_not_disturb_connecting(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.monitor.triggers.fire(Trigger.RESTARTED)
    begun = bench.clock.now
    assert isinstance(await bench.monitor.connect(), Alive)
    assert bench.clock.now - begun < 0.1
    assert caplog.records == []
    assert bench.events.rungs() == []


async def test_warp_plus_is_connected(bench: Bench) -> None:
    bench.edge.warp = "plus"
    assert isinstance(await bench.monitor.connect(), Alive)


async def test_connecting_goes_on_to_the_endpoint_that_answers(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.edge.endpoints = {ENDPOINTS[2]}
    begun = bench.clock.now
    with caplog.at_level(logging.INFO):
        assert isinstance(await bench.monitor.connect(), Alive)
    assert bench.monitor.config.endpoint == ENDPOINTS[2]
    assert bench.clock.now - begun < 15
    assert len(caplog.records) == 2


async def test_a_page_that_does_not_say_warp_is_reported_and_never_repaired(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer came through our peer: no repair can change what the page says (H2)."""
    bench.edge.warp = "off"
    verdict = await bench.monitor.connect()
    assert isinstance(verdict, Foreign)
    assert not verdict.proven
    async with watching(bench, 1800):
        warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
        assert warnings == ["wg0 answers, but the trace page says warp=off"]
        assert bench.events.rungs() == []
        traces = [at for at, what in bench.edge.asked if what.startswith("trace")]
        assert len(traces) <= 30, "asked ever more rarely"
        bench.edge.warp = "on"
        back = bench.clock.now
        await bench.until(750)
        assert bench.events.shown(Alive, back) < float("inf")


async def test_connecting_never_gives_up_and_is_quick_once_the_edge_is_there(bench: Bench) -> None:
    bench.edge.up = False
    done: list[float] = []

    async def run() -> None:
        await bench.monitor.connect()
        done.append(bench.clock.now)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await bench.until(200)
        assert not done
        back = bench.clock.now
        bench.edge.up = True
        await bench.until(10)
    assert done
    assert done[0] - back <= 5


async def test_dns_without_a_trace_is_degraded_with_the_reason_and_one_gentle_repair(bench: Bench) -> None:
    bench.edge.traces = False
    begun = bench.clock.now
    verdict = await bench.monitor.connect()
    assert verdict == Degraded("wg0 answers DNS, but the trace page does not load: refused")
    assert bench.clock.now - begun < 30
    async with watching(bench, 1800):
        assert bench.events.rungs() == [Rung.REPLACE_PEER]
        assert len([at for at, what in bench.edge.asked if what.startswith("trace")]) < 60
        bench.edge.traces = True
        back = bench.clock.now
        await bench.until(750)
        assert bench.events.shown(Alive, back) < float("inf")


async def test_tcp_that_dies_in_the_tunnel_is_degraded_after_the_next_traces(bench: Bench) -> None:
    async with watching(bench, 5):
        bench.edge.traces = False
        died = bench.clock.now
        await bench.until(1800)
        assert bench.events.shown(Degraded) - died < 400
        assert bench.events.rungs() == [Rung.REPLACE_PEER]
        assert len([at for at, what in bench.edge.asked if at > died and what.startswith("trace")]) < 60


async def test_an_interface_deleted_while_connecting_is_recreated(bench: Bench) -> None:
    bench.edge.up = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.monitor.connect)
        await bench.until(1)
        bench.edge.exists = False
        bench.edge.up = True
        gone = bench.clock.now
        bench.monitor.triggers.fire(Trigger.GONE)
        await bench.until(2)
    assert bench.edge.recreated == 1
    assert bench.events.answer_after(gone) - gone < 0.5


async def test_a_healthy_tunnel_is_asked_every_interval_and_silent_in_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(bench, 301):
        queries = [at for at, what in bench.edge.asked if what.startswith("dns 1.")]
        assert 28 <= len(queries) <= 31
        traces = [at for at, what in bench.edge.asked if what.startswith("trace 1.")]
        assert len(traces) == 2, "to connect, and once for both families"
        await bench.until(80)
        traces = [at for at, what in bench.edge.asked if what.startswith("trace 1.")]
        assert len(traces) == 3
    assert caplog.records == []
    assert bench.events.rungs() == []


async def test_both_families_are_traced_at_the_start(bench: Bench) -> None:
    async with watching(bench, 4):
        ips = {what.ip for _, what in bench.events.seen if isinstance(what, Trace)}
        assert ips == {ip_address("104.28.0.1"), ip_address("2a09:bac1::1")}


async def test_a_lost_session_under_traffic_is_healed_within_six_seconds(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with watching(bench, 3):
        lost = bench.clock.now
        bench.edge.restart_edge()
        for _ in range(60):
            bench.edge.tx += 1
            await bench.until(0.1)
        assert bench.events.rungs() == [Rung.REPLACE_PEER]
        assert bench.events.answer_after(lost) - lost < 5
    assert caplog.records[0].message.startswith("no answer through wg0")
    assert caplog.records[1].message.startswith("wg0 answers again (after ")
    assert "replacing the peer" in caplog.records[1].message
    assert len(caplog.records) == 2


@pytest.mark.parametrize("phase", [0.0, 2.5, 5.0, 7.5, 9.9])
async def test_a_loss_without_traffic_is_noticed_within_fifteen_seconds(bench: Bench, phase: float) -> None:
    async with watching(bench, 20 + phase):
        bench.edge.up = False
        lost = bench.clock.now
        await bench.until(20)
        noticed = bench.events.shown(Silent)
        assert noticed - lost <= 15


async def test_a_long_outage_ends_within_six_seconds_of_its_end(bench: Bench) -> None:
    async with watching(bench):
        bench.edge.up = False
        await bench.until(150)
        bench.edge.up = True
        back = bench.clock.now
        await bench.until(10)
        assert bench.events.answer_after(back) - back <= 6


async def test_a_deleted_interface_is_recreated_and_restored_at_once(bench: Bench) -> None:
    async with watching(bench, 5):
        bench.edge.exists = False
        gone = bench.clock.now
        await bench.until(2)
        assert bench.edge.recreated == 1
        assert bench.events.rungs() == [Rung.RECREATE]
        (restored,) = bench.restored
        assert restored - gone <= 0.5
        assert bench.events.answer_after(restored) - restored < 0.2


async def test_an_interface_that_vanishes_in_the_middle_of_a_check_is_only_recreated(bench: Bench) -> None:
    bench.edge.round_trip = 0.3
    async with watching(bench, 12.25):  # the third check begins at 12.3
        asked = len(bench.edge.asked)
        await bench.until(0.1)
        assert len(bench.edge.asked) == asked + 2
        bench.edge.exists = False
        bench.monitor.triggers.fire(Trigger.GONE)
        await bench.until(3)
        assert bench.events.rungs() == [Rung.RECREATE]


async def test_a_recreation_that_fails_is_tried_again(bench: Bench) -> None:
    bench.edge.refuse_recreate = 2
    async with watching(bench):
        bench.edge.exists = False
        await bench.until(15)
        assert bench.edge.recreated == 3
        assert len(bench.restored) == 1
        assert not bench.monitor.broken
