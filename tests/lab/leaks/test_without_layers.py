"""Nothing repairs, engine and wg0 are gone: what still keeps packets in with each layer removed (L-28)."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cloudflare.netns import Namespace
from tests.conftest import Record
from tests.lab.host_topology import SSH
from tests.lab.leaks.injected import WITHOUT_NFT, WITHOUT_RULES, WITHOUT_TABLE
from tests.lab.leaks.stage import PROBES, Stage
from tests.lab.probes import Pinger, Prober
from tests.lab.scene import TRACE4
from tests.lab.senders import BOUND, UNBOUND, seen
from tests.lab.topology import HOST, WIRE
from tests.lab.visitors import greeted
from tests.lab.wire import Wire

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120 + PROBES // 10)]

LAYERS = {
    "the engine": "true",
    "rules": WITHOUT_RULES,
    "table and swallowing device": WITHOUT_TABLE,
    "nftables": WITHOUT_NFT,
}


@contextmanager
def frozen(stage: Stage) -> Iterator[None]:
    """Stop the supervisor and kill the engine; afterwards everything is mended by it."""
    os.kill(stage.scene.engine, signal.SIGKILL)
    os.kill(stage.scene.product.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stage.scene.product.pid, signal.SIGCONT)
        stage.whole(20)


@pytest.mark.parametrize("removed", LAYERS)
def test_l28_any_one_layer_may_go(stage: Stage, removed: str, record: Record) -> None:
    """What ssserver sends keeps in by the bound device, the routes (`full`) or nftables, each alone.

    The kinds that are not bound to wg0 lack that layer already. First wg0 is there, then it is gone, too.
    """
    kinds = (*(stage.by_route if removed == "nftables" else stage.kinds), *BOUND)
    with frozen(stage), Pinger(stage.scene.client, TRACE4, gap=0.01):
        with stage.watched(), Prober(stage.lab, kinds) as prober:
            stage.lab.run("H", ["sh", "-c", LAYERS[removed]])
            prober.probed(PROBES)
            stage.lab.run("H", ["ip", "link", "del", "wg0"])
            tried = prober.probed(PROBES // 10)
        if not stage.ground.own:
            assert greeted(stage.lab, HOST[0], SSH), "and it is reachable"
    record(f"L-28, {stage.name}, without: {removed}", f"0 of {tried} probes of {len(kinds)} kinds in clear")


@pytest.fixture
def strict(stage: Stage) -> Iterator[None]:
    """Routes of a device without a carrier do not count, as FRR's packages set it."""

    def set_to(value: int) -> None:
        names = [f"ipv{six}__conf__{name}" for six in (4, 6) for name in ("all", "eth0", "wg0", "ssw-null")]
        host = Namespace.named(stage.lab.name("H"))
        host.sysctl(**{f"{name}__ignore_routes_with_linkdown": value for name in names})
        host.close()

    set_to(1)
    yield
    set_to(0)


def test_l28_an_unread_floor_has_a_carrier(stage: Stage, strict: None, record: Record) -> None:
    """The engine is dead, nftables gone, and the supervisor stands still: the routes alone are left."""
    if not stage.by_route:
        pytest.skip("in `proxy` unbound traffic has no routes of its own")
    with frozen(stage), stage.watched(), Prober(stage.lab, stage.by_route) as prober:
        stage.lab.run("H", ["sh", "-c", WITHOUT_NFT])
        tried = prober.probed(PROBES // 10)
    record(f"L-28, {stage.name}, ignore_routes_with_linkdown", f"0 of {tried} probes in clear")


def test_l28_with_all_layers_gone_every_probe_is_seen(stage: Stage) -> None:
    with frozen(stage):
        stage.lab.run("H", ["sh", "-c", "; ".join(LAYERS.values())])
        with Wire(stage.lab.name("R"), WIRE) as wire, Prober(stage.lab, UNBOUND) as prober:
            prober.probed(min(100, PROBES))
    assert seen(wire, UNBOUND) == prober.went
