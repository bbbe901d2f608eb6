"""One account per volume: kept volumes, and one volume that several starts want at once."""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cloudflare.netns import run
from tests.conftest import Record
from tests.lab.hosts import more_hosts
from tests.lab.namespace import dump
from tests.lab.product import Product, eventually
from tests.lab.scene import TRACE4, TRACE6, Scene, client_of, watched
from tests.lab.starts import contents
from tests.lab.topology import Lab
from tests.pace import fewer

pytestmark = pytest.mark.lab

STARTS = fewer(max(10, int(os.environ.get("LAB_REPEAT", "20"))))
PAIRS = 5
FEW = 500
"""Tracked connections: those of the last lives time out, they must not add up."""
BUSY = 75


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "cloudflare") as lab:
        yield lab


def objects(lab: Lab) -> list[str]:
    """Return everything that could grow from start to start."""
    tracked = "conntrack -C 2>/dev/null || cat /proc/sys/net/netfilter/nf_conntrack_count"
    namespace = lab.name("H")
    return [
        *dump(lab).splitlines(),
        *lab.run("H", ["nft", "-s", "list", "tables"]).stdout.splitlines(),
        f"processes {len(run('ip', 'netns', 'pids', namespace).split())}",
        f"connections {'few' if int(lab.run('H', ['sh', '-c', tracked]).stdout) < FEW else 'many'}",
    ]


@pytest.mark.vm
def test_a10_c19_many_starts_register_once_and_nothing_grows(
    lab: Lab, tmp_path: Path, record: Record
) -> None:
    """A hundred in virtual time: tests/unit/account/test_lifecycle.py."""
    state = tmp_path / "state"
    with watched(lab, first_run=True), Product(lab, state) as first:
        first.serving()
        first.said("Registering accepts")
        assert first.secrets()["password"] in first.log
        assert first.stop() == 0
    kept = contents(state)
    password = first.secrets()["password"]
    assert len(lab.cloudflare.registrations()) == 1
    lab.cloudflare.forget_calls()
    begun = objects(lab)
    with watched(lab):
        for _ in range(STARTS - 1):
            with Product(lab, state) as product:
                product.serving()
                assert product.stop() == 0
            assert password not in product.log
            assert "ss://" not in product.log
            assert "─" not in product.log, "the block is for the first run"
            assert len(product.lines) <= 6, product.log
    assert lab.cloudflare.calls() == [], "no call at all"
    assert contents(state) == kept
    assert objects(lab) == begun
    record(
        f"A-10, C-19: {STARTS} starts with a kept volume",
        "1 registration, no call of the API after the first start, "
        "no link, rule, route, table, file, process or connection more",
    )
    record("lines that a second start prints", len(product.lines))


def test_c_12_five_starts_at_once_register_once(lab: Lab, tmp_path: Path, record: Record) -> None:
    state = tmp_path / "state"
    with more_hosts(lab, 4) as others, ExitStack() as stack:
        five = [stack.enter_context(Product(lab, state, place)) for place in ("H", *others)]
        eventually(lambda: sum(one.process.poll() is not None for one in five) >= 4, "four have ended", 15)
        (winner,) = (one for one in five if one.process.poll() is None)
        losers = [one for one in five if one is not winner]
        assert [one.ended() for one in losers] == [BUSY] * 4
        for one in losers:
            reasons = [line for line in one.lines if line.startswith("ss-warp: ")]
            assert len(reasons) == 1, one.log
            assert str(state) in reasons[0]
            assert "Traceback" not in one.log
        winner.serving()
        assert len(lab.cloudflare.registrations()) == 1
        assert winner.stop() == 0
    record("5 starts at once on one volume", f"1 registration, the others end with 75: {reasons[0]}")


def test_an_api_in_a_black_hole_makes_no_start_slower(lab: Lab, tmp_path: Path, record: Record) -> None:
    """A-09: API and its name are gone; both kinds of start take turns."""
    state, cf = tmp_path / "state", lab.cloudflare

    def start() -> float:
        with Product(lab, state, environment={"SHADOWSOCKS": "off"}) as product:
            product.reached("connected")
            return time.monotonic() - product.started_at

    start()
    took: dict[str, list[float]] = {"open": [], "dropped": []}
    cf.forget_calls()
    for _ in range(PAIRS):
        for port, times in took.items():
            cf.port(port)
            times.append(start())
    cf.port("open")
    assert cf.calls() == [], "no call, so none can fail"
    with_it, without = (statistics.median(times) for times in took.values())
    pairs = [gone - there for there, gone in zip(took["open"], took["dropped"], strict=True)]
    record(
        f"start to connected, {PAIRS} pairs",
        f"API there {with_it:.2f} s, dropped {without:.2f} s, {statistics.median(pairs):+.2f} s apart",
    )
    assert without <= 1.5 * with_it


def test_the_first_client_of_a_second_start_gets_through(lab: Lab, tmp_path: Path) -> None:
    """What the volume keeps is enough: the old password opens the new start."""
    state = tmp_path / "state"
    with Product(lab, state) as product:
        product.serving()
        with client_of(lab, product, tmp_path) as client:
            assert Scene(lab, product, client).reaches(TRACE4)
            assert product.stop() == 0
            with product:
                product.serving()
                scene = Scene(lab, product, client)
                eventually(lambda: scene.reaches(TRACE4), "the same client, the next start")
                assert scene.reaches(TRACE6)
