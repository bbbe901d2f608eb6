"""What test_example_sidecar_ends.py left behind, a minute later; and what brings a sidecar back."""

import time
from functools import partial

from tests.conftest import Record
from tests.image.example import Example
from tests.image.sidecar import ENOUGH, Ends, by_warp, probes
from tests.lab.product import eventually

MINUTE = 60.0


def over(moment: float) -> bool:
    """Say whether that moment of the monotonic clock is over."""
    return time.monotonic() >= moment


def test_l23_an_orphan_stays_blocked(browser: Example, ends: Ends, record: Record) -> None:
    """L-23: for a minute after each end."""
    for how in {"SIGTERM", "SIGKILL", "OOM"} - {one.how for one in ends.orphans}:
        ends.end(how)
    for one in ends.orphans:
        eventually(partial(over, one.since + MINUTE), "a minute", MINUTE + 5)
        now = probes(one.sidecar)
        least = min(now["tried"][kind] - before for kind, before in one.told["tried"].items())
        record(f"{one.how}: probes of each kind by an orphan in a minute", f"{least}, in clear 0")
        assert least >= ENOUGH
        assert now["answers"] == one.told["answers"]
    assert browser.internet.heard().leaks == {}


def test_d03_d05_the_remedies_and_one_account_whatever_is_done(browser: Example, record: Record) -> None:
    """D-05: what examples/browser/README.md says brings a sidecar back, does.

    D-03: one account; the engine itself cannot be restarted here.
    """
    before = browser.internet.registrations()
    browser.compose("restart", "browser")
    assert by_warp(browser.asked("browser"))
    browser.up("--force-recreate", "--no-deps", "ss-warp")
    browser.connected()
    assert {word for _, word in browser.asked("browser", timeout=1.5).values()} == {"error"}
    browser.up("--force-recreate", "--no-deps", "browser")
    assert by_warp(browser.asked("browser"))
    browser.container("ss-warp").kill()
    browser.up("--force-recreate")
    assert by_warp(browser.asked("browser"))
    browser.compose("down", "--timeout", "5")
    browser.up()
    assert by_warp(browser.asked("browser"))
    record("registrations over all that", browser.internet.registrations() - before)
    assert browser.internet.registrations() == before
    assert browser.internet.heard().leaks == {}
