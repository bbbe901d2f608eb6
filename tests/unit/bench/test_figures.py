"""The figures' arithmetic, their page, and the ends of a measurement."""

import json
import socket
import struct
import threading
from pathlib import Path

import pytest

from bench.figures import FIGURES, Figure, Goal
from bench.lanes import GVISOR, OURS, SYSTEM, WIREGUARD
from bench.ports import COUNT
from bench.report import BEGIN, END, better, goals, paired, ratios, spread, written
from bench.sink import COUNTED, bulk, memory_file

ROOT = Path(__file__).parents[3]
LIMITS = (Goal("WireGuard alone", "≥", 0.95), Goal("the better sing-box", "≥", 1.3))
SPEED = Figure("speed", "m/s", 0, True, LIMITS, OURS, WIREGUARD)
FOUND = {
    OURS: [100.0, 90.0, 300.0],
    WIREGUARD: [100.0, 100.0, 100.0],
    GVISOR: [50.0, 60.0, 900.0],
    SYSTEM: [80.0, 90.0, 70.0],
}

RESULT = {
    "when": "",
    "rounds": 3,
    "machine": "",
    "load": [0.0, 1.0],
    "versions": {},
    "command": "",
    "samples": {"download, 1 stream": FOUND},
}


def test_ratios_are_those_of_each_round() -> None:
    assert paired([2.0, 6.0], [1.0, 2.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="longer"):
        paired([1.0], [1.0, 2.0])


def test_the_better_peer_is_the_one_with_the_better_median() -> None:
    assert better(SPEED, FOUND) == SYSTEM
    assert better(Figure("cost", "s", 0, False), FOUND) == GVISOR
    assert better(SPEED, {OURS: [1.0]}) == ""


def test_goals_are_judged_by_the_median_of_the_ratios() -> None:
    assert goals(SPEED, FOUND) == "WireGuard alone: ≥ 0.95 met; the better sing-box: ≥ 1.3 **missed**"
    assert goals(Figure("size", "MB", 0, False, (Goal("itself", "≤", 100),)), FOUND) == "≤ 100 met"


def test_a_value_shows_median_and_range() -> None:
    assert spread([3.0, 1.0, 2000.0], 0) == "**3** (1–2,000)"
    assert ratios(SPEED, FOUND)[0] == "**1.00** (0.90–3.00)"
    assert ratios(SPEED, FOUND)[1] == "**1.25** (1.00–4.29), system"


def test_the_page_says_what_was_measured() -> None:
    page = (ROOT / "docs/benchmarks.md").read_text()
    results = json.loads((ROOT / "bench/results.json").read_text())
    assert written(page, results) == page, "stale: run make bench"
    assert written(page, results | {"throughput": RESULT}) != page
    with pytest.raises(ValueError, match="markers"):
        written(page.replace(END, ""), results)
    assert BEGIN in page


def test_every_group_has_figures_of_its_own() -> None:
    names = [figure.name for figures in FIGURES.values() for figure in figures]
    assert len(names) == len(set(names))


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def test_the_sink_counts_what_it_throws_away(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    serving = threading.Thread(target=bulk, args=(far, memory_file()))
    serving.start()
    with near:
        near.sendall(COUNT + bytes(300_000))
        near.shutdown(socket.SHUT_WR)
        total, first, last = COUNTED.unpack(near.recv(COUNTED.size, socket.MSG_WAITALL))
    serving.join(5)
    assert total == 300_000
    assert first <= last


def test_the_sink_sends_until_the_other_end_closes(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    serving = threading.Thread(target=bulk, args=(far, memory_file()))
    serving.start()
    with near:
        near.sendall(b"D")
        assert len(near.recv(3 << 20, socket.MSG_WAITALL)) == 3 << 20
    serving.join(5)
    assert not serving.is_alive()
