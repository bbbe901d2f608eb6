import json
import logging
from ipaddress import ip_address
from pathlib import Path

import pytest

from entrypoint.addresses import Endpoint
from entrypoint.commands.cli import status_text
from entrypoint.errors import DefectError
from entrypoint.health.ladder import Rung
from entrypoint.health.probe import Trace
from entrypoint.linux.kernel_objects import Stats
from entrypoint.status.board import Board, status_json
from entrypoint.status.heartbeat import find_problem
from entrypoint.status.states import Event, State
from shadowsocks.server import Listening
from tests.fakes.clock import FakeClock

V4 = Trace("on", ip_address("104.28.0.1"), "AMS", "NL")
V6 = Trace("plus", ip_address("2a09:bac1::1"), "AMS", "NL")
KEYS = {
    *("state", "since", "reason", "warp", "exit", "colo", "implementation", "endpoint", "reserved"),
    *("handshake_age", "rx_bytes", "tx_bytes", "account", "shadowsocks", "healing"),
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def board(clock: FakeClock, tmp_path: Path) -> Board:
    return Board(clock, tmp_path / "run", interval=10)


def written(tmp_path: Path) -> dict[str, object]:
    return dict(json.loads((tmp_path / "run/status.json").read_text()))


def connected(board: Board) -> Board:
    board.move(Event.ACCOUNT_READY)
    board.answered(V4)
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
    board.move(Event.API_SILENT, "429, next try in 60 s")
    board.move(Event.API_SILENT, "429, next try in 60 s")
    board.move(Event.ACCOUNT_READY)
    board.answered(None)
    assert board.status.state is State.CONNECTING, "a DNS answer does not say that it came by WARP"
    board.answered(Trace("off", ip_address("198.51.100.7"), "AMS", "NL"))
    assert board.status.state is State.CONNECTING
    assert healthy(tmp_path, clock) == "connecting: account registered: connecting"
    board.answered(V4)
    board.answered(V6)
    assert healthy(tmp_path, clock) == ""
    assert written(tmp_path)["exit"] == {"ipv4": "104.28.0.1", "ipv6": "2a09:bac1::1"}
    assert [record.getMessage() for record in caplog.records] == [
        "no account yet: registering one",
        "the API gave no account: 429, next try in 60 s",
        "account registered: connecting",
        "connected: warp=on by 104.28.0.1 AMS",
    ]


def test_steady_state_is_silent_and_beats(
    board: Board, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connected(board)
    caplog.clear()
    caplog.set_level(logging.DEBUG, "ss-warp")
    for _ in range(100):
        clock.now += 10
        board.answered(None)
        board.answered(V4)
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
    board.silent("no answer through wg0")
    assert "healing: the tunnel is silent: healing: no answer through wg0" in healthy(tmp_path, clock)
    board.healing(Rung.REPLACE_PEER)
    board.silent("wg0 is gone")
    board.healing(Rung.RECREATE)
    assert board.status.reason == "repair tried: recreating the interface"
    healing = written(tmp_path)["healing"]
    assert healing == {"since": "2027-01-15T08:01:00Z", "rung": "recreating the interface", "tried": 2}
    assert written(tmp_path)["since"] == "2027-01-15T08:01:00Z", "the state's, not the reason's"
    clock.now += 1
    board.answered(None)
    assert board.status.state is State.CONNECTED
    assert written(tmp_path)["healing"] is None
    assert healthy(tmp_path, clock) == ""
    assert not caplog.records, "the monitor tells of outages"


def test_health_is_a_tunnel_and_a_server_that_answers(board: Board, clock: FakeClock, tmp_path: Path) -> None:
    assert healthy(tmp_path, clock) == "starting: starting"
    connected(board)
    assert healthy(tmp_path, clock) == "", "a start is told by what comes through the tunnel"
    at = {Listening("tcp", ip_address("203.0.113.7"), 8388)}
    board.serving("2022-blake3-aes-128-gcm", (), at)
    assert healthy(tmp_path, clock) == ""
    board.serving("2022-blake3-aes-128-gcm", (), ())
    assert healthy(tmp_path, clock) == "unserved: the tunnel works, but Shadowsocks does not answer"
    board.silent("no answer through wg0")
    assert healthy(tmp_path, clock).startswith("healing: ")
    board.answered(V4)
    board.serving("2022-blake3-aes-128-gcm", (), at)
    assert healthy(tmp_path, clock) == ""


def test_a_repair_without_an_outage_stays_connected(board: Board) -> None:
    connected(board).healing(Rung.REPLACE_PEER)
    assert board.status.state is State.CONNECTED
    assert board.status.repairs == 1
    assert board.status.healing is None


def test_late_news_does_not_matter_when_stopping(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    connected(board)
    caplog.clear()
    caplog.set_level(logging.INFO, "ss-warp")
    board.stopping()
    board.stopping()
    board.move(Event.ACCOUNT_READY)
    board.answered(V4)
    board.silent("gone")
    board.healing(Rung.RECREATE)
    assert board.status.state is State.STOPPING
    assert [record.getMessage() for record in caplog.records] == ["stopping"]


def test_an_unknown_step_is_a_defect(board: Board) -> None:
    with pytest.raises(DefectError):
        board.move(Event.ANSWERED)


def test_everything_noted_is_shown(board: Board, clock: FakeClock, tmp_path: Path) -> None:
    board.device("userspace", Endpoint(ip_address("2606:4700:d0::1"), 500), b"\xc1\x1d\x07")
    board.account("free")
    up = [Listening("udp", ip_address("172.18.0.2"), 8388), Listening("tcp", ip_address("172.18.0.2"), 8388)]
    board.serving("aes-128-gcm", ("alice",), up)
    board.counted(Stats(clock.wall() - 12, 1000, 2000))
    connected(board)
    assert written(tmp_path) == {
        "state": "connected",
        "since": "2027-01-15T08:00:00Z",
        "reason": "connected: warp=on by 104.28.0.1 AMS",
        "warp": "on",
        "exit": {"ipv4": "104.28.0.1", "ipv6": None},
        "colo": "AMS",
        "implementation": "userspace",
        "endpoint": "[2606:4700:d0::1]:500",
        "reserved": "193,29,7",
        "handshake_age": 12,
        "rx_bytes": 1000,
        "tx_bytes": 2000,
        "account": {"kind": "free"},
        "shadowsocks": {
            "listening": ["tcp 172.18.0.2:8388", "udp 172.18.0.2:8388"],
            "method": "aes-128-gcm",
            "users": ["alice"],
        },
        "healing": None,
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
    assert "no device to no endpoint" in status_text(status_json(board.status, 0))


def test_a_directory_that_cannot_be_written_is_told_once(
    clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").write_text("a file in the way")
    connected(Board(clock, tmp_path / "run"))
    assert sum("cannot write the status" in record.getMessage() for record in caplog.records) == 1
