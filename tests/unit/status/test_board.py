import json
import logging
import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from entrypoint.addresses import Endpoint
from entrypoint.commands.status import status_text
from entrypoint.errors import DefectError
from entrypoint.health.ladder import Rung
from entrypoint.health.probe import Trace
from entrypoint.health.verdict import Alive, Blocked, Degraded, Foreign, Silent, Verdict
from entrypoint.linux.kernel_objects import Guise, Stats
from entrypoint.status.board import Board
from entrypoint.status.heartbeat import find_problem
from entrypoint.status.states import Event, State
from shadowsocks.server import Listening
from tests.fakes.clock import FakeClock

V4 = Trace("on", ip_address("104.28.0.1"), "AMS", "NL")
V6 = Trace("plus", ip_address("2a09:bac1::1"), "AMS", "NL")
KEYS = {
    *("state", "since", "reason", "healthy", "health", "cause", "warp", "exit", "colo", "country"),
    *(
        "implementation",
        "endpoint",
        "reserved",
        "junk",
        "handshake_age",
        "answer_age",
        "round_trip_ms",
        "families",
    ),
    *(
        "rx_bytes",
        "tx_bytes",
        "account",
        "shadowsocks",
        "healing",
        "day",
        "time",
        "pid",
        "traced",
        "reconnects",
    ),
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def board(clock: FakeClock, tmp_path: Path) -> Board:
    return Board(clock, tmp_path / "run", interval=10)


def written(tmp_path: Path) -> dict[str, object]:
    return dict(json.loads((tmp_path / "run/status.json").read_text()))


def answer(board: Board, trace: Trace | None = None) -> None:
    board.record_answer(trace.ip.version if trace and trace.ip else 4, trace, 0.05)
    board.show(Alive())


def connected(board: Board) -> Board:
    board.move(Event.ACCOUNT_READY)
    answer(board, V4)
    return board


def healthy(tmp_path: Path, clock: FakeClock) -> str:
    return find_problem((tmp_path / "run/heartbeat").read_text(), clock.monotonic())


def test_it_writes_from_the_start(board: Board, clock: FakeClock, tmp_path: Path) -> None:
    assert set(written(tmp_path)) == KEYS
    assert written(tmp_path)["state"] == "starting"
    assert healthy(tmp_path, clock) == "starting: starting"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["heartbeat", "status.json"]


def test_first_connection(
    board: Board, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ss-warp")
    board.move(Event.ACCOUNT_MISSING)
    clock.now += 2
    board.move(Event.API_SILENT, "429; retrying in 60 s")
    board.move(Event.API_SILENT, "429; retrying in 60 s")
    clock.now += 62
    board.move(Event.ACCOUNT_READY)
    board.record_answer(4, None, 0.05)
    assert board.status.state is State.CONNECTING, "the monitor alone judges"
    assert healthy(tmp_path, clock) == "connecting: registered account"
    clock.now += 0.3
    answer(board, V4)
    answer(board, V6)
    assert healthy(tmp_path, clock) == ""
    assert written(tmp_path)["exit"] == {"ipv4": "104.28.0.1", "ipv6": "2a09:bac1::1"}
    assert [record.getMessage() for record in caplog.records] == [
        "registering an account",
        "registration failed: 429; retrying in 60 s",
        "registered account (64.0 s)",
        "connected (0.3 s): warp=on through 104.28.0.1 AMS",
    ]


def test_steady_state_is_silent_and_beats(
    board: Board, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connected(board)
    caplog.clear()
    caplog.set_level(logging.DEBUG, "ss-warp")
    for _ in range(100):
        clock.now += 10
        answer(board)
        answer(board, V4)
    assert not caplog.records
    assert healthy(tmp_path, clock) == ""
    clock.now += 34
    assert healthy(tmp_path, clock) == ""
    clock.now += 2
    assert "no answered check for 36 s" in healthy(tmp_path, clock)


def test_an_outage(board: Board, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    connected(board)
    clock.now += 60
    caplog.clear()
    caplog.set_level(logging.INFO, "ss-warp")
    board.show(Silent("no answer through wg0"))
    assert healthy(tmp_path, clock) == "healing: no answer through wg0"
    board.show_repair(Rung.REPLACE_PEER)
    board.show(Silent("wg0 is gone"))
    board.show_repair(Rung.RECREATE)
    assert board.status.reason == "wg0 is gone"
    healing = written(tmp_path)["healing"]
    assert healing == {"since": "2027-01-15T08:01:00Z", "rung": "recreating the interface", "tried": 2}
    assert written(tmp_path)["since"] == "2027-01-15T08:01:00Z", "the state's, not the reason's"
    clock.now += 74
    answer(board)
    assert board.status.state is State.CONNECTED
    status = written(tmp_path)
    assert status["healing"] is None
    assert status["day"]["interruptions"] == 1  # type: ignore[index]
    assert status["day"]["seconds"] == 74  # type: ignore[index]
    assert healthy(tmp_path, clock) == ""
    assert not caplog.records, "the monitor logs outages"


@pytest.mark.parametrize(
    ("verdict", "state", "healthy"),
    [
        (Alive(), "connected", True),
        (Degraded("no trace"), "degraded", False),
        (Foreign("warp=off"), "foreign", True),
        (Silent("no answer"), "healing", False),
        (Blocked("no answer: blocked"), "blocked", False),
    ],
)
def test_every_verdict_is_one_word_everywhere(
    board: Board, tmp_path: Path, clock: FakeClock, verdict: Verdict, state: str, healthy: bool
) -> None:
    connected(board).show(verdict)
    status = written(tmp_path)
    assert (status["state"], status["health"], status["healthy"]) == (state, state, healthy)
    beat = (tmp_path / "run/heartbeat").read_text()
    assert beat.split()[0] == state
    assert (find_problem(beat, clock.monotonic()) == "") is healthy


def test_counters_survive_a_replaced_peer_and_a_restart(
    board: Board, clock: FakeClock, tmp_path: Path
) -> None:
    board.expect(shadowsocks=False, state_directory=tmp_path)
    board.count(Stats(0, 1000, 100))
    board.count(Stats(0, 1500, 150))
    board.count(Stats(0, 10, 20))
    assert (board.status.rx_bytes, board.status.tx_bytes) == (1510, 170)
    board.show_stop()
    again = Board(clock, tmp_path / "run")
    again.expect(shadowsocks=False, state_directory=tmp_path)
    again.count(Stats(0, 5, 5))
    assert (again.status.rx_bytes, again.status.tx_bytes) == (1515, 175)


def test_health_is_a_tunnel_and_a_server_that_answers(board: Board, clock: FakeClock, tmp_path: Path) -> None:
    assert healthy(tmp_path, clock) == "starting: starting"
    connected(board)
    assert healthy(tmp_path, clock) == ""
    board.expect(shadowsocks=True)
    assert healthy(tmp_path, clock).startswith("unserved: "), "it has not listened yet"
    at = {Listening("tcp", ip_address("203.0.113.7"), 8388)}
    board.show_listeners("2022-blake3-aes-128-gcm", (), at)
    assert healthy(tmp_path, clock) == ""
    board.show_listeners("2022-blake3-aes-128-gcm", (), ())
    assert healthy(tmp_path, clock).startswith("unserved: ")
    board.show(Silent("no answer through wg0"))
    assert healthy(tmp_path, clock).startswith("healing: ")
    answer(board, V4)
    board.show_listeners("2022-blake3-aes-128-gcm", (), at)
    assert healthy(tmp_path, clock) == ""


def test_a_repair_without_an_outage_stays_connected(board: Board) -> None:
    connected(board).show_repair(Rung.REPLACE_PEER)
    assert board.status.state is State.CONNECTED
    assert board.status.repairs == 1
    assert board.status.healing is None


def test_late_news_does_not_matter_when_stopping(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    connected(board)
    caplog.clear()
    caplog.set_level(logging.INFO, "ss-warp")
    board.show_stop()
    board.show_stop()
    board.move(Event.ACCOUNT_READY)
    answer(board, V4)
    board.show(Silent("gone"))
    board.show_repair(Rung.RECREATE)
    assert board.status.state is State.STOPPING
    assert [record.getMessage() for record in caplog.records] == ["stopping"]


def test_an_unknown_step_is_a_defect(board: Board) -> None:
    with pytest.raises(DefectError):
        board.move(Event.ANSWERED)


def test_everything_noted_is_shown(board: Board, clock: FakeClock, tmp_path: Path) -> None:
    board.show_device(
        "userspace", Endpoint(ip_address("2606:4700:d0::1"), 500), Guise(b"\xc1\x1d\x07", "4,40,70")
    )
    board.show_account("free")
    up = [Listening("udp", ip_address("172.18.0.2"), 8388), Listening("tcp", ip_address("172.18.0.2"), 8388)]
    board.show_listeners("aes-128-gcm", ("alice",), up)
    board.count(Stats(clock.wall() - 12, 1000, 2000))
    connected(board)
    assert written(tmp_path) == {
        "time": "2027-01-15T08:00:00Z",
        "pid": os.getpid(),
        "state": "connected",
        "since": "2027-01-15T08:00:00Z",
        "reason": "connected: warp=on through 104.28.0.1 AMS",
        "healthy": True,
        "health": "connected",
        "cause": None,
        "warp": "on",
        "exit": {"ipv4": "104.28.0.1", "ipv6": None},
        "colo": "AMS",
        "country": "NL",
        "traced": "2027-01-15T08:00:00Z",
        "implementation": "userspace",
        "endpoint": "[2606:4700:d0::1]:500",
        "reserved": "193,29,7",
        "junk": "4,40,70",
        "handshake_age": 12,
        "answer_age": 0,
        "round_trip_ms": 50,
        "families": {"ipv4": "2027-01-15T08:00:00Z", "ipv6": None},
        "rx_bytes": 1000,
        "tx_bytes": 2000,
        "account": {"kind": "free"},
        "shadowsocks": {
            "listening": ["tcp 172.18.0.2:8388", "udp 172.18.0.2:8388"],
            "method": "aes-128-gcm",
            "users": ["alice"],
        },
        "healing": None,
        "reconnects": {"asked": 0, "changed": 0},
        "day": {
            "strip": " " * 95 + "█",
            "interruptions": 0,
            "seconds": 0,
            "last": None,
            "last_reason": None,
            "exits": ["104.28.0.1 AMS NL"],
            "repairs": 0,
        },
    }
    text = status_text(written(tmp_path))
    for part in (
        "connected since",
        "104.28.0.1",
        "userspace",
        "193,29,7",
        "12 s ago",
        "free",
        "tcp 172.18.0.2:8388",
    ):
        assert part in text


def test_the_text_copes_with_nothing_known(board: Board) -> None:
    assert "no device to no endpoint" in status_text(board.status.as_json(1))


def test_a_directory_that_cannot_be_written_is_logged_once(
    clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").write_text("a file in the way")
    connected(Board(clock, tmp_path / "run"))
    assert sum("cannot write the status" in record.getMessage() for record in caplog.records) == 1
