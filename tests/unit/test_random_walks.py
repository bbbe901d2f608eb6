"""Ten thousand steps of board and monitor, by a seed that changes and is printed; SEED=… repeats one."""

import os
import random
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest

from entrypoint.addresses import Family
from entrypoint.health.diagnosis import Cause, Diagnosis
from entrypoint.health.ladder import Rung
from entrypoint.health.probe import Trace
from entrypoint.health.triggers import Trigger
from entrypoint.health.verdict import Alive, Blocked, Degraded, Foreign, Silent, Verdict, is_usable
from entrypoint.linux.kernel_objects import Stats
from entrypoint.status.board import Board
from entrypoint.status.heartbeat import find_problem
from entrypoint.status.states import OUTAGE, USABLE, Event, State
from tests.conftest import Record
from tests.fakes.clock import FakeClock
from tests.unit.health.monitor_bench import ENDPOINTS, make_bench, quiet_httpx, watching

__all__ = ["quiet_httpx"]  # a fixture
STEPS = 10_000
FAMILIES: tuple[set[Family], ...] = ({4, 6}, {4, 6}, {4}, {6})


@pytest.fixture
def draw() -> random.Random:
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(1_000_000)))
    print(f"SEED={seed}")
    return random.Random(seed)


def test_ten_thousand_steps_of_the_board_agree_with_its_files(
    tmp_path: Path, draw: random.Random, record: Record
) -> None:
    clock = FakeClock()
    board = Board(clock, tmp_path)
    board.expect(shadowsocks=False)
    board.move(Event.ACCOUNT_READY)
    traces = [Trace(warp, ip_address("104.28.0.1"), "FRA", "DE") for warp in ("on", "off")]
    verdicts: list[Verdict] = [
        Alive(),
        Degraded("no page"),
        Foreign("warp=off"),
        Silent("no answer"),
        Blocked("blocked"),
    ]
    states = set[State]()
    for _ in range(STEPS):
        clock.now += draw.expovariate(1 / 20)
        match draw.randrange(8):
            case 0 | 1 | 2:
                board.show(draw.choice(verdicts))
            case 3:
                board.record_answer(draw.choice((4, 6)), draw.choice((None, *traces)), draw.random())
            case 4:
                board.show_repair(draw.choice(list(Rung)))
            case 5:
                board.show_cause(draw.choice((None, Diagnosis(draw.choice(list(Cause)), "why"))))
            case 6:
                board.count(Stats(clock.wall(), draw.randrange(10**6), draw.randrange(10**6)))
            case 7 if board.status.state in OUTAGE:
                board.move(Event.ACCOUNT_GONE)
                board.move(Event.ACCOUNT_READY)
            case _:
                board.show_reconnect(draw.choice(ENDPOINTS))
        status = board.status
        states.add(status.state)
        assert (status.healing is not None) == (status.state in OUTAGE)
        problem = find_problem((tmp_path / "heartbeat").read_text(), clock.monotonic())
        assert status.healthy or problem, "the heartbeat is never better than the status"
    assert states == {*USABLE, *OUTAGE, State.CONNECTING}
    record("10,000 steps of the board", f"{len(states)} states, {board.history.repairs} repairs")


@pytest.mark.anyio
@pytest.mark.timeout(300)
async def test_ten_thousand_steps_of_the_monitor_keep_their_promises(
    draw: random.Random, record: Record
) -> None:
    """At most one HTTPS request a second, no repair without silence, and well again within a minute."""
    bench = make_bench(draw.randrange(1_000_000))
    edge = bench.edge
    async with watching(bench, 15):
        for _ in range(STEPS):
            match draw.randrange(12):
                case 0:
                    edge.up = not edge.up
                case 1:
                    edge.restart_edge()
                case 2:
                    edge.traces = draw.random() < 0.7
                case 3:
                    edge.warp = draw.choice(("on", "on", "plus", "off"))
                case 4:
                    edge.families = draw.choice(FAMILIES)
                case 5:
                    edge.endpoints = draw.choice((None, None, {draw.choice(ENDPOINTS)}))
                case 6:
                    edge.round_trip = draw.choice((0.02, 0.05, 0.3, 1.0))
                case 7:
                    edge.exists = draw.random() < 0.8
                case 8:
                    bench.monitor.triggers.fire(draw.choice(list(Trigger)))
                case _:
                    edge.tx += draw.randrange(5)
            await bench.until(draw.expovariate(5))
        edge.up = edge.exists = edge.session = edge.traces = True
        edge.warp, edge.families, edge.endpoints, edge.round_trip = "on", {4, 6}, None, 0.05
        well = bench.clock.now
        bench.monitor.triggers.fire(Trigger.RESTARTED)
        while not isinstance(bench.monitor.verdict, Alive) and bench.clock.now < well + 900:
            await bench.until(1)
        assert is_usable(bench.monitor.verdict)
        assert isinstance(bench.monitor.verdict, Alive)
    asked = [at for at, what in edge.asked if what.startswith("trace")]
    assert all(later - earlier > 0.999 for earlier, later in pairwise(asked))
    record(
        "10,000 steps of the monitor",
        f"{bench.clock.now / 3600:.1f} h, {len(bench.events.rungs())} repairs, {len(asked)} pages",
    )
