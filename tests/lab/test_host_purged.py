"""Rules and tables purged on a host while we run: restored at once, and no fight (K-06, K-15)."""

import os
import time

import pytest

from tests.conftest import Record
from tests.lab.host_running import again, kernel, lab, logged_in, mode, product
from tests.lab.host_topology import DOCKERS
from tests.lab.product import Product, ticks
from tests.lab.topology import Lab

__all__ = ["lab", "mode", "product"]  # fixtures

pytestmark = pytest.mark.lab

STORM = {"full": 10, "proxy": 2}
"""Seconds."""

OURS = {"full": "32757 32758 32759 32760 32761 32764", "proxy": "32759 32760"}
PURGE = (
    "for f in 4 6; do for p in {}; do while ip -$f rule del priority $p 2>/dev/null; do :; done; done; done"
)
FLUSH = "nft delete table inet ss_warp; nft delete table arp ss_warp"


@pytest.mark.parametrize("what", ["one rule", "some rules", "all rules", "nft", "nft flush ruleset"])
def test_k06_purged_it_is_restored(lab: Lab, mode: str, product: Product, what: str, record: Record) -> None:
    good, ours = kernel(lab), OURS[mode].split()
    deed = {
        "one rule": f"ip rule del priority {ours[-1]}",
        "some rules": PURGE.format(" ".join(ours[:2])),
        "all rules": PURGE.format(" ".join(ours)),
        "nft": FLUSH,
        "nft flush ruleset": "nft flush ruleset",  # nftables.service reload; Docker's own go with it
    }[what]
    with logged_in(lab) as sessions:
        lab.run("H", ["sh", "-c", deed])
        if what == "nft flush ruleset":
            lab.run("H", ["iptables-restore"], text=DOCKERS)
            took = again(lambda: set(kernel(lab)) >= set(good), what, 5)
        else:
            took = again(lambda: kernel(lab) == good, what, 5)
        longest = max(one.longest for one in sessions)
    record(
        f"K-06, {mode}: {what} removed",
        f"restored in {took:.2f} s (limit 1 s), longest silence {longest * 1000:.0f} ms",
    )
    assert took <= 1


def test_k06_in_a_storm_it_does_not_fight(lab: Lab, mode: str, product: Product, record: Record) -> None:
    good, ours = kernel(lab), OURS[mode].split()
    said, used, begun = len(product.lines), ticks(product.pid), time.monotonic()
    one = f"ip rule del priority {ours[0]} 2>/dev/null; sleep 0.016"
    with logged_in(lab):
        lab.run("H", ["sh", "-c", f"for n in $(seq {50 * STORM[mode]}); do {one}; done"], timeout=60)
        lasted = time.monotonic() - begun
        seconds = (ticks(product.pid) - used) / os.sysconf("SC_CLK_TCK")
        restores = sum("restored network configuration" in line for line in product.lines[said:])
        took = again(lambda: kernel(lab) == good, "calm again", 10)
    record(
        f"K-06, {mode}: a rule deleted {50 * STORM[mode]} times in {lasted:.1f} s",
        f"{restores} restores (10, then one in 5 s), {seconds:.2f} s of CPU (limit 0.5), "
        f"whole {took:.1f} s after it",
    )
    assert 2 <= restores <= 10 + lasted / 5
    assert seconds <= 0.05 * max(lasted, 10)


def test_k15_wg_quick_down_deletes_by_pattern(lab: Lab, mode: str, product: Product, record: Record) -> None:
    """Its teardown deletes rules by words that are ours, too, until its own are gone."""
    up = (
        "ip rule add not fwmark 0xca6c table 51899; ip rule add table main suppress_prefixlength 0",
        "ip -6 rule add not fwmark 0xca6c table 51899; ip -6 rule add table main suppress_prefixlength 0",
    )
    down = "; ".join(
        f"while ip -{family} rule show | grep -q '{words}'; do ip -{family} rule delete {pattern}; done"
        for family in (4, 6)
        for words, pattern in (
            ("lookup 51899", "table 51899"),
            ("from all lookup main suppress_prefixlength 0", "table main suppress_prefixlength 0"),
        )
    )
    good, said = kernel(lab), len(product.lines)
    with logged_in(lab) as sessions:
        lab.run("H", ["sh", "-c", "; ".join(up)])
        lab.run("H", ["sh", "-c", down])
        took = again(lambda: kernel(lab) == good, "ours are whole", 5)
        longest = max(one.longest for one in sessions)
    record(
        f"K-15, {mode}: wg-quick up and down beside us",
        f"ours whole {took:.2f} s later ({' '.join(product.lines[said:]).count('rule add')} had gone), "
        f"longest silence of a session {longest * 1000:.0f} ms",
    )
    assert took <= 1
