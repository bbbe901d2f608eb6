"""The retry policy, and what it makes of a fleet: nodes that fail together do not come back together."""

import heapq
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field

import pytest

from entrypoint.account.registration import FIRST_PAUSE, LONGEST_UNSENT
from entrypoint.account.replies import ApiError
from entrypoint.retry import MOST_JITTER, retrying

NODES = int(os.environ.get("FUZZ", 10_000))
OUTAGE = 120.0
"""Seconds without the API."""
CAPACITY = NODES / 100
"""Registrations that it then carries out each second; the rest are answered 429."""
RETRY_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Hands the seconds to whoever runs the coroutine."""

    seconds: float

    def __await__(self) -> Generator[float]:
        yield self.seconds


async def sleep(seconds: float) -> None:
    await Pause(seconds)


@dataclass(slots=True)
class Api:
    """Down until OUTAGE, then limited; `asked` and `done` are counted by second."""

    now: float = 0.0
    asked: Counter[int] = field(default_factory=Counter)
    done: Counter[int] = field(default_factory=Counter)

    def register(self) -> None:
        """Carry a call out, or refuse it."""
        second = int(self.now)
        self.asked[second] += 1
        if self.now < OUTAGE:
            raise ApiError("cannot reach it", again=0)
        if self.done[second] >= CAPACITY:
            raise ApiError("429", again=RETRY_AFTER)
        self.done[second] += 1


async def node(attempt: Callable[[], None]) -> None:
    """Register, as entrypoint/account/registration.py does."""
    async for trial in retrying(
        sleep,
        first=FIRST_PAUSE,
        longest=LONGEST_UNSENT,
        demanded=lambda error: error.again if isinstance(error, ApiError) else None,
    ):
        with trial:
            attempt()


def run(api: Api, nodes: list[Coroutine[float, None, None]]) -> None:
    """Run them in virtual time, until all have ended."""
    due = [(0.0, number) for number in range(len(nodes))]
    while due:
        api.now, number = heapq.heappop(due)
        try:
            heapq.heappush(due, (api.now + nodes[number].send(None), number))
        except StopIteration:
            continue


def test_ten_thousand_nodes_after_an_outage(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/scale.md has the figures."""
    api = Api()
    seed = random.randrange(10_000)
    random.seed(seed)
    run(api, [node(api.register) for _ in range(NODES)])
    down = max(count for second, count in api.asked.items() if OUTAGE / 2 <= second < OUTAGE)
    back = max(count for second, count in api.asked.items() if second >= OUTAGE)
    last = max(api.done) - OUTAGE
    most = sum(count for second, count in api.done.items() if second < OUTAGE + 600)
    mean = sum(api.asked.values()) / NODES
    with capsys.disabled():
        print(
            f"\nseed {seed}: at most {down} calls a second while it is down, {back} after;"
            f" {most} registered 10 min after, all {last / 60:.0f} min after; {mean:.1f} calls a node"
        )
    assert sum(api.done.values()) == NODES
    assert api.asked[0] >= NODES, "they failed together"
    assert down <= NODES / 10
    assert back <= NODES / 10
    assert last <= 45 * 60


async def ask(pauses: list[float], error: ApiError) -> None:
    """Fail as long as there is room in `pauses`."""

    async def noted(seconds: float) -> None:
        pauses.append(seconds)

    async for trial in retrying(noted, first=1, longest=25, demanded=lambda _: error.again):
        with trial:
            if len(pauses) < 20:
                raise error


def test_a_pause_is_what_is_demanded_and_a_growing_random_part() -> None:
    for demand, longest in ((0.0, 25.0), (60.0, MOST_JITTER)):
        pauses = list[float]()
        with pytest.raises(StopIteration):
            ask(pauses, ApiError("no", again=demand)).send(None)
        for number, pause in enumerate(pauses):
            bound = min(max(1, demand / 2) * 2**number, longest)
            assert bound / 2 <= pause - demand <= bound
        assert len({*pauses}) == len(pauses)
