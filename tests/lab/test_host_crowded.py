"""A host with 100,000 routes, with 10,000 nftables rules of others, and others that change theirs always.

The limits hold on a busy machine. What is recorded are the figures; where one counts it is processor time.
"""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.host_topology import SSH, host_lab
from tests.lab.hosts import on_host
from tests.lab.product import Product, eventually, ticks
from tests.lab.topology import HOST, Lab
from tests.lab.visitors import greeted
from tests.pace import REPEAT, fewer, longer

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

ROUTES = fewer(100_000)
RULES = fewer(10_000)
HERTZ = 100
CHANGES = 10
"""Changes that others make in a second."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with host_lab(tmp_path / "cloudflare") as lab:
        yield lab


def spent(pid: int) -> float:
    """Return seconds of processor time of this process and of its children that ended (proc(5): 14 to 17)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / HERTZ


def resident(pid: int) -> float:
    """Return MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def started(lab: Lab, state: Path) -> tuple[Product, float, float]:
    """Start the product with an account; return it, what that cost, and its memory."""
    product = on_host(lab, state, "full").start()
    product.serving(60)
    return product, spent(product.pid), resident(product.pid)


def alone(lab: Lab, state: Path) -> tuple[float, float]:
    """Return cost of a start and memory on an empty host."""
    for _ in range(2):  # the first registers
        product, cost, memory = started(lab, state)
        assert product.stop() == 0
    return cost, memory


@contextmanager
def changing(lab: Lab, *commands: str) -> Iterator[None]:
    """Run these in turn, so many times a second."""
    loop = f"while true; do for what in {' '.join(f"'{one}'" for one in commands)}; do $what; "
    loop += f"sleep {1 / CHANGES}; done; done"
    process = lab.popen("H", ["sh", "-c", loop], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def test_a_hundred_thousand_routes(lab: Lab, tmp_path: Path, record: Record) -> None:
    cost, memory = alone(lab, tmp_path / "state")
    lines = (
        f"route add {10 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.0/24 via 203.0.113.1 proto bgp"
        for n in range(ROUTES)
    )
    lab.run("H", ["ip", "-batch", "-"], text="\n".join(lines) + "\n")
    product, crowded, grown = started(lab, tmp_path / "state")
    try:
        assert greeted(lab, HOST[0], SSH)
        before, begun = ticks(product.pid), time.monotonic()
        change = "ip route replace 198.51.100.128/25 via 203.0.113.1 proto bgp metric 7"
        with changing(lab, change, change.replace("replace", "del")):
            threading.Event().wait(5)
        share = (ticks(product.pid) - before) / HERTZ / (time.monotonic() - begun)
        begun = time.monotonic()
        assert product.stop() == 0
        stopped = time.monotonic() - begun
    finally:
        product.__exit__(None, None, None) if product in product.running else product.process.kill()
    record(
        f"{ROUTES} routes",
        f"start {crowded - cost:+.2f} s of processor time, memory {grown - memory:+.1f} MB, "
        f"{CHANGES} changes a second {share:.1%} of a core, stopped after {stopped:.1f} s with exit code 0",
    )
    assert crowded - cost <= longer(0.6)
    assert grown - memory <= 10
    assert share <= longer(0.05)
    assert stopped <= longer(4)


def test_ten_thousand_rules_of_others(lab: Lab, tmp_path: Path, record: Record) -> None:
    cost, _ = alone(lab, tmp_path / "state")
    rules = "\n".join(
        f"ip saddr 198.18.{n >> 8 & 255}.{n & 255} tcp dport {n + 1} counter" for n in range(RULES)
    )
    text = f"table inet theirs {{\nchain input {{\ntype filter hook input priority 0\n{rules}\n}}\n}}\n"
    lab.run("H", ["nft", "-f", "-"], text=text)
    product, crowded, _ = started(lab, tmp_path / "state")
    try:
        assert greeted(lab, HOST[0], SSH)
        assert product.stop() == 0
    finally:
        product.process.kill()
    record(f"{RULES} nftables rules of others", f"start {crowded - cost:+.2f} s of processor time")
    assert crowded - cost <= longer(0.4)


def test_a_flushed_table_beside_busy_others(lab: Lab, tmp_path: Path, record: Record) -> None:
    """No repair waits because of their changes."""
    lab.run("H", ["nft", "add table inet busy; add chain inet busy one"])
    took = []
    with on_host(lab, tmp_path / "state", "full") as product:
        product.serving()
        with changing(lab, "nft add rule inet busy one counter", "nft flush chain inet busy one"):
            for _ in range(2 * REPEAT):
                lab.run("H", ["nft", "delete table inet ss_warp; delete table arp ss_warp"])
                begun = time.monotonic()
                eventually(lambda: loaded(lab), "our table")
                took.append(time.monotonic() - begun)
                threading.Event().wait(0.4)
        assert product.stop() == 0
    record(
        f"a table flushed beside {CHANGES} changes a second",
        f"back within {max(took) * 1000:.0f} ms, {len(took)} of {len(took)} times",
    )
    assert max(took) <= longer(1)


def loaded(lab: Lab) -> bool:
    return lab.run("H", ["nft", "list", "chain", "inet", "ss_warp", "output"], check=False).returncode == 0
