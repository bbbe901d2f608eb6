"""What ss-warp needs is taken away by other programs, and put back (L-08 to L-11).

Ten repairs in a row are done at once, more only one in 5 s: what is timed comes first.
"""

import os
import signal
import time
from contextlib import ExitStack

import pytest

from tests.conftest import Record
from tests.lab.host_topology import DOCKERS
from tests.lab.leaks.injected import WITHOUT_RULES
from tests.lab.leaks.stage import Stage
from tests.lab.probes import PING, Pinger, Prober
from tests.lab.product import eventually
from tests.lab.scene import TRACE4, TRACE6
from tests.lab.senders import BOUND, UNBOUND, light, seen
from tests.lab.topology import WIRE
from tests.lab.wire import Wire
from tests.pace import longer

pytestmark = pytest.mark.lab

DEEDS = {
    "down": "ip link set wg0 down",
    "deleted": "ip link del wg0",
    "renamed": "ip link set wg0 down && ip link set wg0 name stolen",
    "moved": "ip link set wg0 netns {R}",
}
NOTICE = "nftables tables were modified externally"


def rules(stage: Stage) -> list[str]:
    """Return all of them; those of one priority may come again in another order."""
    return sorted(
        line
        for family in ("-4", "-6")
        for line in stage.lab.run("H", ["ip", family, "rule"]).stdout.splitlines()
    )


def armed(stage: Stage) -> bool:
    tables = (
        stage.lab.run("H", ["nft", "list", "table", one, "ss_warp"], check=False) for one in ("inet", "arp")
    )
    return all(found.returncode == 0 for found in tables)


@pytest.mark.vm
def test_l09_rules_flushed(stage: Stage, record: Record) -> None:
    before = rules(stage)
    with stage.watched(), Prober(stage.lab, light((*stage.kinds, *BOUND))) as prober:
        stage.lab.run("H", ["sh", "-c", WITHOUT_RULES])
        flushed = time.monotonic()
        eventually(lambda: rules(stage) == before, "the rules are as before", 10)
        took = time.monotonic() - flushed
        prober.probed(20)
    record(
        f"L-09, {stage.name}, rules flushed",
        f"0 of {prober.tried} probes in clear, restored after {took * 1000:.0f} ms (limit 1 s)",
    )
    assert took <= longer(1)


def flush(stage: Stage) -> None:
    """Flush every table, as a firewall that reloads does; the host's own rules come again."""
    stage.lab.run("H", ["nft", "flush", "ruleset"])
    if not stage.ground.own:
        stage.lab.run("H", ["iptables-restore"], text=DOCKERS)


@pytest.mark.vm
def test_l10_nftables_flushed(stage: Stage, record: Record) -> None:
    noticed = stage.scene.product.log.count(NOTICE)
    with stage.watched(), Prober(stage.lab, light((*stage.by_route, *BOUND))) as prober:
        flush(stage)
        flushed = time.monotonic()
        eventually(lambda: armed(stage), "both tables are there", 10)
        took = time.monotonic() - flushed
        prober.probed(20)
    record(
        f"L-10, {stage.name}, nftables flushed",
        f"0 of {prober.tried} probes in clear, armed again after {took * 1000:.0f} ms (limit 1 s)",
    )
    assert took <= longer(1)
    assert stage.scene.product.log.count(NOTICE) == noticed + 1, "told once"


def test_l11_rules_and_nftables_at_once(stage: Stage, record: Record) -> None:
    """The bound device holds for ssserver; what others lose in the meantime is counted.

    The supervisor is stopped meanwhile: otherwise the first is back before the second is gone.
    """
    before = rules(stage)
    with (
        Wire(stage.lab.name("R"), WIRE) as wire,
        Prober(stage.lab, light((*BOUND, *UNBOUND))) as prober,
        Pinger(stage.scene.client, TRACE4, gap=0.005) as pinger,
    ):
        pinger.again(time.monotonic(), 10)
        os.kill(stage.scene.product.pid, signal.SIGSTOP)
        stage.lab.run("H", ["sh", "-c", f"{WITHOUT_RULES}; nft flush ruleset"])
        prober.probed(20)
        os.kill(stage.scene.product.pid, signal.SIGCONT)
        flushed = time.monotonic()
        eventually(lambda: armed(stage) and rules(stage) == before, "all is as before", 10)
        took = time.monotonic() - flushed
        prober.probed(20)
        clear = seen(wire)
    if not stage.ground.own:
        stage.lab.run("H", ["iptables-restore"], text=DOCKERS)
    bound = sum(clear[one.name] for one in BOUND)
    theirs = bound + sum(PING in one.payload for one in wire.leaks())
    record(
        f"L-11, {stage.name}, both flushed",
        f"ssserver's: {theirs} in clear, others': {clear.total() - bound}; "
        f"both are back after {took * 1000:.0f} ms",
    )
    assert theirs == 0
    assert clear.total() > bound, "with both gone, others' packets do leave"


@pytest.mark.vm
@pytest.mark.parametrize("deed", DEEDS)
def test_l08_wg0_is_taken_away(stage: Stage, deed: str, record: Record) -> None:
    with ExitStack() as stack:
        stack.enter_context(stage.watched())
        prober = stack.enter_context(Prober(stage.lab, light((*stage.kinds, *BOUND))))
        pinger = stack.enter_context(Pinger(stage.scene.client, TRACE4, gap=0.01))
        stage.lab.run("H", ["sh", "-c", DEEDS[deed].format(R=stage.lab.name("R"))])
        away = time.monotonic()
        pinger.again(time.monotonic(), 10)
        eventually(lambda: stage.scene.reaches(TRACE6), "IPv6 again", 10)
        took = time.monotonic() - away
    if deed == "renamed":
        stage.lab.run("H", ["ip", "link", "del", "stolen"])
    if deed == "moved":
        stage.lab.run("R", ["ip", "link", "del", "wg0"])
    stage.whole()
    record(
        f"L-08, {stage.name}, wg0 {deed}",
        f"0 of {prober.tried} probes in clear, repaired after {took:.2f} s (limit 3 s)",
    )
    assert took <= longer(3)
