"""No false alarm in bad weather, no storm after an outage, and a log that stays short; in virtual time."""

import logging
import random
from collections import Counter
from dataclasses import replace

import pytest

from entrypoint.health.ladder import Rung
from tests.unit.health.monitor_bench import PROBE, Bench, bench, make_bench, quiet_httpx, watching

__all__ = ["bench", "quiet_httpx"]  # fixtures
pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("round_trip", "busy"),
    [(0.3, False), (3.0, True), (1.0, True)],
    ids=["300 ms", "3 s of bufferbloat", "1 Mbit/s, saturated"],
)
async def test_half_an_hour_of_bad_weather_repairs_nothing(
    bench: Bench, round_trip: float, busy: bool
) -> None:
    async with watching(bench, 15):
        bench.edge.round_trip, bench.edge.bulk = round_trip, busy
        await bench.until(1800)
        assert bench.events.rungs() == []


async def test_half_an_hour_of_5_percent_loss_repairs_nothing(bench: Bench) -> None:
    seed = random.randrange(10_000)
    print(f"seed {seed}")
    async with watching(bench, 15):
        # A question is two packets at least; one more for the page's handshake.
        bench.edge.loss, bench.edge.random = 1 - 0.95**3, random.Random(seed)
        await bench.until(1800)
        assert bench.events.rungs() == []


async def test_n_13_a_flapping_tunnel_is_repaired_once_in_five_seconds_at_most(bench: Bench) -> None:
    async with watching(bench, 15):
        begun = bench.clock.now
        for second in range(60):
            bench.edge.up = second % 2 == 0
            bench.edge.tx += 5
            await bench.until(1)
        assert len(bench.events.rungs()) <= (bench.clock.now - begun) / 5


@pytest.mark.timeout(300)
async def test_a_fleet_asks_the_api_at_times_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "ss-warp")
    seed = random.randrange(10_000)
    print(f"seed {seed}")
    asked = []
    for number in range(100):
        one = make_bench(seed + number)
        one.monitor.probe = replace(PROBE, dns=PROBE.dns[:1], trace_urls=())  # a third of the work
        async with watching(one, 1):
            one.edge.up = False
            lost = one.clock.now
            await one.until(180)
            asked.append(int(one.doubts[0] - lost))
    # A hundred draws from sixty seconds: twelve or more in one of them come by chance once in 70,000 runs
    # (Poisson, 1.67 a second).
    assert max(Counter(asked).values()) <= 11
    assert max(asked) - min(asked) >= 45


async def test_a_day_with_three_outages_is_twelve_lines_of_cause_and_effect(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Scaled: ten minutes of health between the outages."""
    caplog.set_level(logging.INFO, "ss-warp")
    async with watching(bench, 15):
        for seconds in (20, 90, 400):
            bench.edge.up = False
            await bench.until(seconds)
            bench.edge.up = True
            await bench.until(600)
    lines = caplog.messages
    assert len(lines) <= 12, lines
    assert sum(line.startswith("no answer through wg0") for line in lines) == 3
    assert sum(line.startswith("wg0 answers again (after ") for line in lines) == 3
    assert any("WireGuard is blocked" in line for line in lines)


async def test_the_endpoint_that_worked_is_remembered_and_the_source_port_changes(bench: Bench) -> None:
    async with watching(bench, 15):
        bench.edge.up = False
        await bench.until(25)
        assert Rung.NEW_PORT in bench.events.rungs()
        bench.edge.up = True
        await bench.until(10)
        known = bench.monitor.memory.known
        assert known[str(bench.monitor.config.endpoint)].worked
