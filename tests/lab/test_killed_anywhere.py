"""SIGKILL of the supervisor at any moment (K-03, C-10): whoever is logged in stays, the next start mends all.

After each kill: open sessions go on and new ones come in; one more start leads to the golden state; and its
clean stop leaves nothing. `LAB_KILLS=all` tries every point there is, 60 and more a mode.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.host_running import settled
from tests.lab.host_topology import ADDRESSES, SSH, dump, host_lab
from tests.lab.hosts import on_host
from tests.lab.kill_points import Point, disarm, lived, points, sample, stopped
from tests.lab.product import Product, eventually
from tests.lab.starts import contents
from tests.lab.topology import Lab
from tests.lab.visitors import Session, greeted
from tests.pace import REPEAT

pytestmark = pytest.mark.lab

ALL = os.environ.get("LAB_KILLS") == "all"
FEW = (REPEAT + 1) // 2
PART = os.environ.get("LAB_KILLS_PART", "1/1")
"""Which part of all the points: 2/5 is the second fifth."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with host_lab(tmp_path_factory.mktemp("cloudflare")) as lab:
        yield lab


@dataclass(frozen=True, slots=True)
class Golden:
    """What was before, what is while it serves, and what it keeps."""

    before: list[str]
    serving: list[str]
    kept: dict[str, bytes]


def golden(lab: Lab, product: Product) -> Golden:
    """Let it live once, the first time it is ever started."""
    with product:
        serving = settled(lab, product.serving())
        assert product.stop() == 0
    return Golden(dump(lab), serving, contents(product.state))


def killed_at(product: Product, point: Point, scratch: Path) -> bool:
    """Whether it came to this point."""
    point.arm(product, scratch)
    code = lived(product)
    disarm(product)
    assert code in (-signal.SIGKILL, 0), f"{point}: {code}\n{product.log}"
    return code != 0


def mended(lab: Lab, product: Product, good: Golden, point: Point) -> None:
    """One more start is as good as the first, and stops as clean."""
    with product:
        assert settled(lab, product.serving(60)) == good.serving, point
        assert stopped(product) == 0, f"{point}\n{product.log}"
    assert dump(lab) == good.before, point
    assert contents(product.state) == good.kept, point


def wanted(every: list[Point], count: int) -> list[Point]:
    if not ALL:
        return sample(every, count)
    part, parts = map(int, PART.split("/"))
    return every[part - 1 :: parts]


@pytest.mark.timeout(3600 if ALL else 60 + 20 * REPEAT)
@pytest.mark.parametrize(("mode", "count"), [("full", REPEAT), ("proxy", FEW)])
def test_k03_c10_on_a_host(lab: Lab, tmp_path: Path, mode: str, count: int, record: Record) -> None:
    before = dump(lab)
    product = on_host(lab, tmp_path / "state", mode)
    good = golden(lab, product)
    assert good.before == before
    every = points(product, tmp_path)
    tried, missed = wanted(every, count), list[Point]()
    with ExitStack() as stack:
        sessions = [Session(lab, address) for address in ADDRESSES]
        for session in sessions:
            stack.callback(session.close)
        for point in tried:
            if not killed_at(product, point, tmp_path):
                missed.append(point)
            for session in sessions:
                heard = session.words
                eventually(lambda: session.words > heard + 2, f"{point}: the session goes on")  # noqa: B023
            for address in ADDRESSES:
                assert greeted(lab, address, SSH), f"{point}: {address} is locked out"
            mended(lab, product, good, point)
        assert not any(one.broken for one in sessions)
        longest = max(one.longest for one in sessions)
    record(
        f"K-03, C-10: host, {mode}, killed at {len(tried) - len(missed)} of {len(every)} points",
        f"{len(sessions)} sessions live, longest silence {longest * 1000:.0f} ms; "
        "the next start is golden, its stop leaves nothing",
    )
    assert len(missed) <= len(tried) // 5, f"strace does not find these again: {', '.join(map(str, missed))}"


@pytest.mark.timeout(3600 if ALL else 60 + 20 * REPEAT)
def test_c10_in_a_namespace_of_its_own(tmp_path: Path, record: Record) -> None:
    with Lab(tmp_path / "cloudflare") as lab:
        product = Product(lab, tmp_path / "state")
        good = golden(lab, product)
        every = points(product, tmp_path)
        tried, missed = wanted(every, FEW), list[Point]()
        for point in tried:
            if not killed_at(product, point, tmp_path):
                missed.append(point)
            assert "policy drop" in lab.run("H", ["nft", "list", "table", "inet", "ss_warp"]).stdout, point
            mended(lab, product, good, point)
    record(
        f"C-10: own, full, killed at {len(tried) - len(missed)} of {len(every)} points",
        "closed throughout; the next start is golden, its stop leaves nothing",
    )
    assert len(missed) <= len(tried) // 5, f"strace does not find these again: {', '.join(map(str, missed))}"
