"""Nothing in clear, whatever dies: judged on the wire (tests/lab/topology.py), in both route modes.

Probes leave H every millisecond: anybody's and ssserver's own in `full`, ssserver's own in `proxy`, where
everybody else goes in clear by design.
"""

import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import Record
from tests.lab.probes import Load, Pinger, Prober
from tests.lab.product import Product, eventually
from tests.lab.scene import TRACE4, TRACE6, Scene, reasons, serving, watched
from tests.lab.senders import ANYBODY, BOUND, THE_SERVERS, light, seen
from tests.lab.topology import WIRE, Lab
from tests.lab.wire import Wire
from tests.pace import fewer, longer

pytestmark = pytest.mark.lab

REPEAT = int(os.environ.get("LAB_REPEAT", "20"))
KINDS = {"full": light(ANYBODY + THE_SERVERS), "proxy": light(THE_SERVERS)}


@pytest.mark.vm
def test_with_the_product_off_every_probe_is_seen(lab: Lab) -> None:
    """L-01; of every protocol, from both placements, in tests/lab/leaks."""
    with Wire(lab.name("R"), WIRE, reasons(lab)) as wire:
        with Prober(lab, KINDS["full"]) as prober:
            eventually(lambda: prober.tried >= 2000, "2000 probes")
        assert not prober.refused
        assert seen(wire) == prober.went


def ways(lab: Lab) -> list[str]:
    """Return rules and the tunnel's table."""
    lists = (["rule"], ["route", "show", "table", "51820"])
    shown = (lab.run("H", ["ip", family, *one]).stdout for family in ("-4", "-6") for one in lists)
    return sorted(line for one in shown for line in one.splitlines())


@pytest.fixture(scope="module", params=["full", "proxy"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def scene(mode: str, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with serving(lab, tmp_path_factory.mktemp(mode), {"ROUTE_MODE": mode}) as scene:
        yield scene


def engines(product: Product) -> list[int]:
    return product.children("ss-warp-wireguard")


@pytest.mark.timeout(60 + 5 * REPEAT)
def test_the_engine_killed_under_load(scene: Scene, mode: str, record: Record) -> None:
    """L-07 and C-07, at random moments."""
    took = []
    before = ways(scene.lab)
    kinds = KINDS[mode] + light(BOUND)
    with ExitStack() as stack:
        stack.enter_context(watched(scene.lab))
        prober = stack.enter_context(Prober(scene.lab, kinds))
        pinger = stack.enter_context(Pinger(scene.client, TRACE4))
        load = stack.enter_context(Load(scene.client, TRACE6))
        pinger.again(time.monotonic(), 5)
        for _ in range(REPEAT):
            load.flows()
            moment = prober.tried + random.randrange(50 * len(kinds))
            eventually(lambda: prober.tried >= moment, "a moment")  # noqa: B023
            engine = scene.engine
            killed = time.monotonic()
            os.kill(engine, signal.SIGKILL)
            took.append(pinger.again(killed, 5))
            eventually(lambda: engines(scene.product) not in ([], [engine]), "a new engine")  # noqa: B023
        eventually(lambda: ways(scene.lab) == before, "rules and routes are complete")
        assert prober.tried > 50 * REPEAT
        assert pinger.sent > 20 * REPEAT
    record(
        f"L-07, {mode}: the engine killed {REPEAT} times under load",
        f"0 of {prober.tried} probes in clear, traffic again after "
        f"{statistics.median(took):.2f} s (median), {max(took):.2f} s (worst; limit 2 s)",
    )
    assert max(took) <= 2


@pytest.mark.parametrize("deed", ["down", "delete"])
def test_wg0_taken_away(scene: Scene, mode: str, deed: str, record: Record) -> None:
    """L-08, again and again; renamed and moved away in tests/lab/leaks."""
    command = {"down": ["ip", "link", "set", "wg0", "down"], "delete": ["ip", "link", "del", "wg0"]}[deed]
    took = []
    with ExitStack() as stack:
        stack.enter_context(watched(scene.lab))
        prober = stack.enter_context(Prober(scene.lab, KINDS[mode]))
        stack.enter_context(Load(scene.client, TRACE6))
        # One association all the time: what ssserver bound to an interface that is gone must not last.
        pinger = stack.enter_context(Pinger(scene.client, TRACE4))
        for _ in range(fewer(3)):
            away = time.monotonic()
            scene.lab.run("H", command)
            pinger.again(time.monotonic(), 10)
            eventually(lambda: scene.reaches(TRACE6), "IPv6 again", 10)
            took.append(time.monotonic() - away)
        assert prober.tried > 100
    record(
        f"L-08, {mode}: wg0 {deed}, three times",
        f"0 of {prober.tried} probes in clear, traffic again after {max(took):.2f} s (worst; limit 3 s)",
    )
    assert max(took) <= longer(3)
