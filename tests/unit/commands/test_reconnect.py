"""`ss-warp reconnect`: a signal to the supervisor, and what has changed; against the real board."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import anyio
import httpx
import pytest

from entrypoint.addresses import Endpoint
from entrypoint.commands.reconnect import ANY_EXIT, Wrong, in_colo, loads, reconnect
from entrypoint.errors import StateError, UnhealableError
from entrypoint.health.probe import Trace
from entrypoint.health.verdict import Alive
from entrypoint.linux.state_dir import lock
from entrypoint.status.board import Board
from entrypoint.status.states import Event
from tests.fakes.world import FakeWorld

pytestmark = pytest.mark.anyio
SITE = ip_address("192.0.2.80")


@dataclass
class Supervisor:
    """A board, and what a signal does: by default another endpoint and exit each time."""

    world: FakeWorld
    board: Board
    colos: list[str]
    said: list[str] = field(default_factory=list)
    signals: int = 0
    deaf: bool = False

    def kill(self, pid: int, number: int) -> None:
        self.signals += 1
        if self.deaf:
            return
        colo = self.colos[min(self.signals, len(self.colos)) - 1]
        self.board.show_reconnect(Endpoint(ip_address("162.159.192.1"), 500 + self.signals))
        self.trace(colo)

    def trace(self, colo: str) -> None:
        self.board.record_answer(4, Trace("on", ip_address(f"104.28.0.{len(colo)}"), colo, "DE"), 0.05)
        self.board.show(Alive())

    async def ask(self, wrong: Wrong = ANY_EXIT, times: int = 1) -> None:
        with lock(self.world.state):
            await reconnect(
                self.world.directory / "run",
                self.world.settings(),
                self.world.doors,
                wrong,
                times=times,
                say=self.said.append,
                kill=self.kill,
            )


@pytest.fixture
def make(tmp_path: Path, anyio_backend: str) -> Callable[..., Supervisor]:
    def made(*colos: str) -> Supervisor:
        world = FakeWorld(tmp_path)
        board = world.board()
        board.move(Event.ACCOUNT_READY)
        board.show_device("userspace", Endpoint(ip_address("162.159.192.1"), 2408))
        one = Supervisor(world, board, list(colos))
        one.trace("FRA")
        return one

    return made


async def test_it_says_what_changed_and_how_often_that_helped(make: Callable[..., Supervisor]) -> None:
    one = make("FRANKFURT")
    await one.ask()
    assert one.said[0] == (
        "new session, endpoint 162.159.192.1:2408 → 162.159.192.1:501, "
        "exit 104.28.0.3 FRA DE → 104.28.0.9 FRANKFURT DE"
    )
    assert "the key stays the same; so far 1 of 1 reconnects changed the exit" in one.said


async def test_the_same_exit_is_said_to_be_the_same(make: Callable[..., Supervisor]) -> None:
    one = make("FRA")
    await one.ask()
    assert "the same exit 104.28.0.3 FRA DE" in one.said[0]
    assert "so far 0 of 1 reconnects changed the exit" in one.said[-1]


async def test_until_the_data_centre_is_there(make: Callable[..., Supervisor]) -> None:
    one = make("FRA", "FRA", "AMS")
    begun = one.world.clock.now
    await one.ask(in_colo("ams"), times=10)
    assert one.signals == 3
    assert one.world.clock.now - begun > 10, "the supervisor ignores what comes within five seconds"


async def test_not_for_ever(make: Callable[..., Supervisor]) -> None:
    one = make("FRA")
    with pytest.raises(UnhealableError, match="after 3 reconnects: the exit is at FRA"):
        await one.ask(in_colo("AMS"), times=3)
    assert one.signals == 3


async def test_until_a_page_loads_through_the_tunnel(make: Callable[..., Supervisor]) -> None:
    one = make("FRA")
    answers = [403, 200]
    asked: list[str] = []

    def site(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.extensions["way"]))
        return httpx.Response(answers.pop(0))

    one.world.http.sites[SITE] = site
    for server in one.world.http.dns:
        one.world.http.dns[server] |= {"example.com": [SITE]}
    one.world.http.through = True
    await one.ask(loads("https://example.com/", one.world.settings(), one.world.doors), times=5)
    assert one.signals == 2
    assert asked == ["Bound(device='wg0')"] * 2


async def test_a_supervisor_that_does_not_reconnect_is_told(make: Callable[..., Supervisor]) -> None:
    one = make("FRA")
    one.deaf = True
    with pytest.raises(UnhealableError, match="no new session within 30 s"):
        with anyio.fail_after(20):
            await one.ask()


async def test_nothing_is_signalled_when_nothing_runs(make: Callable[..., Supervisor]) -> None:
    one = make("FRA")
    with pytest.raises(StateError, match="not running"):
        await reconnect(
            one.world.directory / "run",
            one.world.settings(),
            one.world.doors,
            ANY_EXIT,
            times=1,
            kill=one.kill,
        )
    assert one.signals == 0
