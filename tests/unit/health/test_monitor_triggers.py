"""What others do to a watched tunnel: restarts, moves, a dead family, slowness; in virtual time."""

import logging

import anyio
import pytest

from entrypoint.errors import UnhealableError
from entrypoint.health.ladder import Rung
from entrypoint.health.triggers import Trigger
from entrypoint.health.verdict import Alive, Foreign, Silent
from tests.unit.health.monitor_bench import ENDPOINTS, Bench, bench, quiet_httpx, watching

__all__ = ["bench", "quiet_httpx"]  # fixtures

pytestmark = pytest.mark.anyio


async def test_an_engine_that_was_started_again_is_checked_not_repaired(bench: Bench) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.monitor.keep_device)
        async with watching(bench):
            before = len(bench.edge.asked)
            assert bench.edge.report is not None
            bench.edge.report("restarted")
            await bench.until(0.5)
            assert any("trace" in what for _, what in bench.edge.asked[before:])
            assert bench.events.rungs() == []
        tasks.cancel_scope.cancel()


async def test_a_new_uplink_address_replaces_the_peer_at_once(bench: Bench) -> None:
    async with watching(bench):
        bench.edge.restart_edge()
        changed = bench.clock.now
        bench.monitor.triggers.fire(Trigger.UPLINK)
        await bench.until(1)
        assert bench.edge.configured == [ENDPOINTS[0]]
        assert bench.events.answer_after(changed) - changed <= 0.5
        assert bench.events.shown(Silent) == float("inf")


async def test_the_uplinks_return_in_a_long_outage_is_used_at_once(bench: Bench) -> None:
    async with watching(bench):
        bench.edge.up = False
        await bench.until(61)
        bench.edge.up = True
        bench.edge.restart_edge()
        back = bench.clock.now
        bench.monitor.triggers.fire(Trigger.UPLINK)
        await bench.until(5)
        assert bench.events.answer_after(back) - back <= 0.5


async def test_a_dead_family_is_named_once_and_the_other_kept(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with watching(bench, 5):
        bench.edge.families = {4}
        await bench.until(30)
        assert [record.message for record in caplog.records] == ["IPv6 does not answer through wg0"]
        assert bench.events.rungs() == []
        await bench.until(30)
        bench.edge.families = {4, 6}
        await bench.until(15)
        assert [record.message for record in caplog.records][1:] == ["IPv6 answers through wg0 again"]


async def test_a_family_that_misses_one_round_is_not_named(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(bench, 5):
        bench.edge.families = {4}
        await bench.until(8)
        bench.edge.families = {4, 6}
        await bench.until(60)
    assert caplog.records == []


@pytest.mark.parametrize("round_trip", [0.3, 1.0, 2.0])
async def test_a_slow_tunnel_is_not_taken_for_a_dead_one(bench: Bench, round_trip: float) -> None:
    bench.edge.round_trip = round_trip
    await bench.monitor.connect()
    async with watching(bench, 120):
        assert bench.events.rungs() == []


async def test_a_tunnel_that_becomes_slow_under_a_download_is_not_repaired(bench: Bench) -> None:
    async with watching(bench, 15):
        bench.edge.round_trip = 2.0
        bench.edge.bulk = True
        await bench.until(120)
        assert bench.events.rungs() == []


async def test_packets_that_nobody_has_to_answer_cost_a_question_not_a_repair(bench: Bench) -> None:
    async with watching(bench, 3):
        before = len(bench.edge.asked)
        for _ in range(100):
            bench.edge.tx += 1
            await bench.until(0.1)
        assert bench.events.rungs() == []
        assert len(bench.edge.asked) - before <= 20
        assert not any("trace" in what for _, what in bench.edge.asked[before:])


async def test_a_trace_that_stops_saying_warp_is_foreign_and_repairs_nothing(bench: Bench) -> None:
    async with watching(bench):
        bench.edge.warp = "off"
        await bench.until(380)
        assert bench.events.verdicts[-1][1] == Foreign("wg0 answers, but the trace page says warp=off")
        assert bench.events.rungs() == []
        bench.edge.warp = "on"
        await bench.until(60)
        assert isinstance(bench.events.verdicts[-1][1], Alive)


async def test_a_short_outage_does_not_recreate_the_interface(bench: Bench) -> None:
    async with watching(bench):
        bench.edge.up = False
        await bench.until(30)
        bench.edge.up = True
        await bench.until(10)
        assert Rung.RECREATE not in bench.events.rungs()


async def test_when_every_repair_was_tried_it_ends_if_the_user_wants_that(bench: Bench) -> None:
    bench.monitor.exit_on_fatal = True
    bench.edge.up = False
    begun = bench.clock.now
    with pytest.raises(UnhealableError, match="no answer through wg0: every repair was tried") as ended:
        await bench.monitor.connect()
    assert ended.value.exit_code == 69
    assert set(bench.events.rungs()) == set(Rung) - {Rung.SWITCH_ENGINE, Rung.DISGUISE}
    assert 90 <= bench.clock.now - begun < 165, (
        "the API is asked after 90 to 150 s, and that is the last rung"
    )
