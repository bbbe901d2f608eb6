"""Host placement beside others: their numbers and VPNs; refusing; what we left when killed.

K-10, K-11, K-12, K-15, C-09.
"""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.client import Reached
from tests.lab.host_running import refused, settled
from tests.lab.host_topology import ADDRESSES, SSH, dump, host_lab
from tests.lab.hosts import LONGEST, on_host
from tests.lab.scene import TRACE4
from tests.lab.topology import HOST, Lab
from tests.lab.visitors import Session, greeted, traced
from tests.pace import longer

pytestmark = pytest.mark.lab

TAILSCALE = (
    "rule add fwmark 0x80000/0xff0000 lookup main priority 5210",
    "rule add fwmark 0x80000/0xff0000 lookup default priority 5230",
    "rule add fwmark 0x80000/0xff0000 unreachable priority 5250",
    "rule add lookup 52 priority 5270",
    "route add 100.100.0.0/24 dev docker0 table 52",
)
WG_QUICK = (
    "route add 10.66.0.0/16 dev docker0 table 51820",
    "rule add not fwmark 0xca6c lookup 51820 priority 32765",
    "rule add lookup main suppress_prefixlength 0 priority 32764",
)
NUMBERS = (
    "rule add from 192.0.2.77 lookup 99 priority 32759",
    "-6 rule add from 2001:db8::77 lookup 99 priority 32761",
    "route add 192.0.2.78 dev eth0 table 51820",
    "link add wg0 type bridge",
    "address add 192.0.2.79/32 dev wg0",
)
LOCKING_OUT = "rule add from 203.0.113.8 lookup 51820 priority 10000"
THEIR_TABLE = "table inet ss_warp {\n chain theirs {\n }\n}\n"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with host_lab(tmp_path / "cloudflare") as lab:
        yield lab


def ip(lab: Lab, *lines: str) -> None:
    for line in lines:
        lab.run("H", ["ip", *line.split()])


def recorded(state: Path) -> list[dict[str, object]]:
    return list(json.loads((state / "network.json").read_text()))


@pytest.mark.parametrize("mode", ["full", "proxy"])
def test_k10_others_numbers_are_avoided(lab: Lab, tmp_path: Path, mode: str, record: Record) -> None:
    ip(lab, *NUMBERS)
    before = dump(lab)
    with on_host(lab, tmp_path / "state", mode) as product:
        product.serving()
        (ours,) = recorded(product.state)
        assert (ours["table"], ours["device"]) == (51821, "wg1")
        assert ours["priority"] == 32756
        theirs = [line for line in before if "nft" not in line and "sysctl" not in line]
        gone = set(theirs) - set(dump(lab))
        assert not gone, "theirs are untouched while we run"
        assert greeted(lab, HOST[0], SSH)
    assert dump(lab) == before
    assert recorded(product.state) == []
    figure = f"{len(gone)} of {len(theirs)} lines of theirs changed while we run, 0 of {len(before)} after"
    record(f"K-10, {mode}: rules, table, device taken by others", figure)


def test_k10_what_was_set_is_refused(lab: Lab, tmp_path: Path) -> None:
    ip(lab, NUMBERS[0])
    before = dump(lab)
    product = on_host(lab, tmp_path / "state", "full", ROUTE_RULE_PRIORITY="32758")
    refused(product, 78, "ROUTE_RULE_PRIORITY=32758", "32759")
    assert dump(lab) == before


def test_k10_the_mark_cannot_be_another_one(lab: Lab, tmp_path: Path) -> None:
    """Who has the mark wants the same packets as we do: refused, and theirs is as it was."""
    ip(lab, "rule add fwmark 0x1000/0x1000 lookup 99 priority 500")
    before = dump(lab)
    for mode in "full", "proxy":
        refused(on_host(lab, tmp_path / mode, mode), 78, "mark 0x1000/0x10ff", "another program")
    assert dump(lab) == before


def test_k10_k14_a_table_that_is_not_on_record(lab: Lab, tmp_path: Path) -> None:
    lab.run("H", ["nft", "-f", "-"], text=THEIR_TABLE)
    before = dump(lab)
    refused(on_host(lab, tmp_path / "state", "proxy"), 78, "inet ss_warp", "not on record")
    assert dump(lab) == before


def test_k04_source_rules_without_a_number_are_kept(lab: Lab, tmp_path: Path) -> None:
    """The kernel gives them 32765 and 32764, behind and among ours."""
    ip(
        lab,
        "rule del priority 10001",
        "rule add from 198.18.7.7 lookup 101",
        "rule add from 192.0.2.99 lookup 99",
    )
    before = dump(lab)
    with on_host(lab, tmp_path / "state", "full") as product:
        product.serving()
        way = lab.run("H", ["ip", "route", "get", "9.9.9.9", "from", "198.18.7.7"]).stdout
        assert "via 198.18.7.1 dev eth1" in way
        for address in ADDRESSES:
            assert greeted(lab, address, SSH), address
    assert dump(lab) == before


@pytest.mark.parametrize("mode", ["full", "proxy"])
def test_k15_tailscale_keeps_its_rules_and_its_way(lab: Lab, tmp_path: Path, mode: str) -> None:
    ip(lab, *TAILSCALE)
    before = dump(lab)
    with on_host(lab, tmp_path / "state", mode) as product:
        product.serving()
        assert traced(lab, TRACE4, mark=0x80000) == Reached("203.0.113.7", "off")
        assert set(one for one in before if one.startswith("ip -4 rule")) <= set(dump(lab))
    assert dump(lab) == before


def test_k15_wg_quick_beside_proxy(lab: Lab, tmp_path: Path) -> None:
    ip(lab, *WG_QUICK)
    before = dump(lab)
    with on_host(lab, tmp_path / "state", "proxy") as product:
        product.serving()
        (ours,) = recorded(product.state)
        assert (ours["priority"], ours["table"]) == (32759, 51821)
    assert dump(lab) == before


def test_k15_two_that_want_everything_is_one_too_many(lab: Lab, tmp_path: Path) -> None:
    ip(lab, *WG_QUICK)
    before = dump(lab)
    refused(on_host(lab, tmp_path / "state", "full"), 78, "32764", "ROUTE_MODE=proxy")
    assert dump(lab) == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("route del default", "no default route"),
        ("address flush dev eth0", "no default route"),  # it goes with the address
        ("address flush dev eth0; route add default dev eth0", "the uplink has no address"),
    ],
)
def test_k11_nowhere_to_go(lab: Lab, tmp_path: Path, line: str, words: str) -> None:
    ip(lab, "link del eth1", "-6 route del default", *line.split("; "))
    before = dump(lab)
    refused(on_host(lab, tmp_path / "state", "full"), 77, words)
    assert dump(lab) == before


def test_k12_who_would_lock_out_takes_all_back(lab: Lab, tmp_path: Path, record: Record) -> None:
    ip(lab, LOCKING_OUT)
    before = dump(lab)
    session = Session(lab, ADDRESSES[1])
    with on_host(lab, tmp_path / "state", "full") as product:
        assert product.ended(10) == 77, product.log
        took = time.monotonic() - product.started_at
    (said,) = (line for line in product.lines if line.startswith("ss-warp: "))
    assert "203.0.113.8 by wg0 instead of eth0" in said
    assert dump(lab) == before
    assert not session.broken
    record(
        "K-12: who would lock out",
        f"taken back {took:.1f} s after the start (limit 5), longest silence {session.longest * 1000:.0f} ms",
    )
    assert took <= 5
    assert session.longest <= 5
    session.close()


@pytest.mark.vm
@pytest.mark.parametrize("mode", ["full", "proxy"])
def test_c09_killed_and_started_again(lab: Lab, tmp_path: Path, mode: str, record: Record) -> None:
    before = dump(lab)
    session = Session(lab, HOST[0])
    product = on_host(lab, tmp_path / "state", mode)
    with product:
        golden = settled(lab, product.serving())
        assert golden != before
        lives_on = product.status()["implementation"] == "kernel"
        product.stop(signal.SIGKILL)
        left = dump(lab)
        assert left != before
        assert greeted(lab, ADDRESSES[1], SSH), "reachable without a supervisor"
        if mode == "full":
            still = traced(lab, TRACE4)
            assert (still and still.warp) == ("on" if lives_on else None), "by the tunnel or not at all"
        product.start()
        assert settled(lab, product.serving()) == golden
        assert product.stop() == 0
    assert dump(lab) == before
    assert recorded(product.state) == []
    assert not session.broken
    assert session.longest <= longer(LONGEST)
    record(f"C-09, {mode}: longest silence of a session", f"{session.longest * 1000:.0f} ms (at most 300)")
    session.close()


def test_unset_it_takes_this_for_a_host_and_polices_ssserver_alone(lab: Lab, tmp_path: Path) -> None:
    before = dump(lab)
    with on_host(lab, tmp_path / "state", "", NETWORK="") as product:
        product.serving()
        rules = lab.run("H", ["ip", "-4", "rule"]).stdout
        assert "32759:" in rules
        assert "32764:" not in rules
        assert traced(lab, TRACE4) == Reached("203.0.113.7", "off")
    assert dump(lab) == before
