"""An edge that loses its sessions, falls silent or is blocked: noticed, healed, told in two sentences."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Record
from tests.lab.probes import Pinger
from tests.lab.product import eventually
from tests.lab.scene import TRACE4, TRACE6, Scene, serving, watched
from tests.lab.topology import Lab
from tests.pace import REPEAT, longer

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with serving(lab, tmp_path_factory.mktemp("healing")) as scene, watched(lab):
        scene.product.said("Registering accepts")  # the end of the first run's block
        yield scene


type Said = Callable[[], list[str]]


@pytest.fixture
def said(scene: Scene) -> Iterator[Said]:
    """What was logged since the test began, without times and figures; afterwards the edge is well again."""
    begun = len(scene.product.lines)
    yield lambda: [line.partition(" ")[2].partition(" (")[0] for line in scene.product.lines[begun:]]
    scene.lab.cloudflare.edge.heal()
    scene.product.reached("connected", 30)


OUTAGE = ["warning: no answer through wg0", "wg0 answers again"]
"""One sentence per change of state."""


@pytest.mark.vm
@pytest.mark.parametrize("process", [False, True], ids=["peers", "processes"])
def test_the_edge_lost_its_sessions(scene: Scene, said: Said, process: bool, record: Record) -> None:
    scene.lab.cloudflare.forget_calls()
    with Pinger(scene.client, TRACE4, gap=0.05) as pinger:
        # A peer is replaced once in 5 s; two outages in a row would measure that.
        pinger.again(time.monotonic() + (5 if process else 0), 10)
        scene.lab.cloudflare.edge.restart(process=process)
        took = pinger.again(time.monotonic(), 20)
    scene.product.reached("connected")
    eventually(lambda: scene.reaches(TRACE6), "IPv6 again")
    record(
        f"the edge lost its {'processes' if process else 'sessions'}", f"healed in {took:.2f} s (limit 6 s)"
    )
    assert took <= longer(6)
    assert scene.lab.cloudflare.calls() == []
    eventually(lambda: len(said()) >= 2, "both sentences")
    assert said() == OUTAGE


def test_sessions_lost_again_and_again(scene: Scene, said: Said, record: Record) -> None:
    """19 of 20 within 6 s; LAB_REPEAT=20 does all twenty."""
    took = []
    with Pinger(scene.client, TRACE4, gap=0.05) as pinger:
        for _ in range(REPEAT):
            pinger.again(time.monotonic() + 6, 12)  # a peer is replaced once in 5 s
            scene.lab.cloudflare.edge.restart()
            took.append(pinger.again(time.monotonic(), 20))
    took.sort()
    late = sum(one > longer(6) for one in took)
    record(
        f"sessions lost {REPEAT} times",
        f"{REPEAT - late} healed within 6 s; median {took[REPEAT // 2]:.1f} s, slowest {took[-1]:.1f} s",
    )
    assert late <= max(1, REPEAT // 20)


def test_a_silent_edge_is_noticed_while_nobody_sends(scene: Scene, said: Said, record: Record) -> None:
    scene.lab.cloudflare.edge.silent()
    begun = time.monotonic()
    scene.product.reached("healing", 20)
    noticed = time.monotonic() - begun
    scene.lab.cloudflare.edge.heal()
    healed = time.monotonic()
    scene.product.reached("connected", 20)
    back = time.monotonic() - healed
    eventually(lambda: scene.reaches(TRACE4), "traffic")
    record(
        "silent edge, idle tunnel",
        f"noticed after {noticed:.1f} s (limit 15 s), back {back:.1f} s after it is well",
    )
    assert noticed <= 15
    assert back <= 15
    eventually(lambda: len(said()) >= 2, "both sentences")
    assert said() == OUTAGE


def test_a_port_blocked_on_the_way_is_left_for_the_next(scene: Scene, said: Said, record: Record) -> None:
    used = scene.product.status()["endpoint"].rpartition(":")[2]
    with Pinger(scene.client, TRACE4, gap=0.05) as pinger:
        pinger.again(time.monotonic(), 5)
        scene.lab.cloudflare.edge.block(ports=[int(used)])
        took = pinger.again(time.monotonic() + 0.2, 60)
    scene.product.reached("connected")
    eventually(lambda: scene.product.status()["endpoint"].rpartition(":")[2] != used, "another port", 15)
    record("port blocked while running", f"traffic by the next port after {took:.1f} s")
    eventually(lambda: len(said()) >= 2, "both sentences")
    assert said() == OUTAGE
