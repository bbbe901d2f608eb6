"""Signals, programs that hang, processes that are stopped or frozen (C-02, C-13, C-14, C-15)."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.namespace import closed, differences, dump, furnish
from tests.lab.probes import Pinger
from tests.lab.product import Product, eventually, health
from tests.lab.scene import TRACE4, Scene, serving, watched
from tests.lab.topology import Lab
from tests.pace import REPEAT

pytestmark = pytest.mark.lab

HOLD = float(max(30, REPEAT))
"""Seconds that processes are stopped."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("cloudflare")) as lab:
        furnish(lab)
        yield lab


@pytest.fixture(scope="module")
def state(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with an account, in a namespace that is closed."""
    directory = tmp_path_factory.mktemp("kept") / "state"
    with Product(lab, directory) as product:
        product.serving()
    return directory


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT], ids=lambda one: one.name)
def test_c02_whoever_wants_it_to_end_gets_a_clean_stop(lab: Lab, state: Path, sent: signal.Signals) -> None:
    before = dump(lab)
    with Product(lab, state) as product:
        product.serving()
        assert product.stop(sent) == 0, product.log
        assert "Traceback" not in product.log
    assert differences(before, dump(lab)) == []
    assert closed(lab)


def test_c02_other_signals_change_nothing_and_twice_is_once(lab: Lab, state: Path) -> None:
    before = dump(lab)
    with Product(lab, state) as product:
        product.serving()
        children = product.children("ss-warp-wireguard") + product.children("ssserver")
        for sent in signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGWINCH:
            product.process.send_signal(sent)

        def rules() -> list[str]:
            return sorted(lab.run("H", ["ip", "rule"]).stdout.splitlines())  # two have the same priority

        before_loss = rules()
        lab.run("H", ["ip", "rule", "del", "priority", "18"])
        eventually(lambda: rules() == before_loss, "it restores what it lost")
        assert product.children("ss-warp-wireguard") + product.children("ssserver") == children
        for sent in signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            product.process.send_signal(sent)
        assert product.ended() == 0, product.log
        assert "Traceback" not in product.log
    assert differences(before, dump(lab)) == []


@pytest.mark.parametrize(
    ("program", "network"), [("nft", "own"), ("nft", "host"), ("ss-warp-wireguard", "own")]
)
def test_c13_a_program_that_hangs_is_killed_and_named(
    lab: Lab, state: Path, tmp_path: Path, program: str, network: str, record: Record
) -> None:
    if network == "host":
        lab.run("H", ["sh", "-c", "nft delete table inet ss_warp; nft delete table arp ss_warp"], check=False)
    before = dump(lab)
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 1000\n")
    hangs.chmod(0o755)
    real = lab.run("H", ["sh", "-c", f"command -v {program}"]).stdout.strip()
    product = Product(lab, state, environment={"NETWORK": network})
    product.prelude = f"mount --bind {hangs} {real}"
    with product:
        assert product.ended(15) == 77, product.log
        took = time.monotonic() - product.started_at
    said = [line for line in product.lines if line.startswith("ss-warp: ")]
    assert len(said) == 1, product.log
    assert program in said[0] or "wg0" in said[0], said
    assert not [pid for pid in lab.run("H", ["pgrep", "-f", "sleep 1000"], check=False).stdout.split()]
    assert differences(before, dump(lab)) == []
    record(f"C-13, {network}: {program} hangs", f"ended with 77 after {took:.1f} s (limit 10): {said[0]}")
    assert took <= 10


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with serving(lab, tmp_path_factory.mktemp("signals")) as scene:
        scene.product.said("Registering accepts")
        yield scene


def test_c14_a_stopped_engine_is_noticed(scene: Scene, record: Record) -> None:
    with watched(scene.lab), Pinger(scene.client, TRACE4, gap=0.02) as pinger:
        pinger.again(time.monotonic(), 5)
        engine, stopped = scene.engine, time.monotonic()
        os.kill(engine, signal.SIGSTOP)
        scene.product.reached("healing", 20)
        noticed = time.monotonic() - stopped
        os.kill(engine, signal.SIGCONT)
        took = pinger.again(time.monotonic(), 20)
        scene.product.reached("connected", 20)
        assert scene.engine == engine, "no restart for so little"
    record(
        "C-14: the engine stopped",
        f"noticed after {noticed:.1f} s (limit 15), traffic {took:.2f} s after it goes on (limit 1)",
    )
    assert noticed <= 15
    assert took <= 1


def told_to_serve(product: Product) -> bool:
    return bool(product.status()["shadowsocks"]["listening"])


def test_c14_a_stopped_ssserver_is_noticed(scene: Scene, record: Record) -> None:
    product = scene.product
    (server,) = product.children("ssserver")
    eventually(lambda: time.monotonic() - product.started_at > 3, "it has answered once")
    with watched(scene.lab), Pinger(scene.client, TRACE4, gap=0.02) as pinger:
        pinger.again(time.monotonic(), 5)
        stopped = time.monotonic()
        os.kill(server, signal.SIGSTOP)
        eventually(lambda: not told_to_serve(product), "it is noticed", 20)
        noticed = time.monotonic() - stopped
        assert health(scene.lab)[0] == 503
        assert product.status()["state"] == "connected", "the tunnel lives"
        os.kill(server, signal.SIGCONT)
        resumed = time.monotonic()
        took = pinger.again(resumed, 20)
        eventually(lambda: told_to_serve(product), "that it serves again is noticed")
        told = time.monotonic() - resumed
        assert health(scene.lab)[0] == 200
        assert product.children("ssserver") == [server], "no restart for so little"
    record(
        "C-14: ssserver stopped",
        f"unhealthy after {noticed:.1f} s (limit 15), traffic {took:.2f} s after it goes on, healthy "
        f"{told:.2f} s after (limit 1)",
    )
    assert noticed <= 15
    assert max(took, told) <= 1


def test_c14_an_ssserver_that_hangs_is_started_again(scene: Scene, record: Record) -> None:
    product, said = scene.product, len(scene.product.lines)
    (server,) = product.children("ssserver")
    stopped = time.monotonic()
    os.kill(server, signal.SIGSTOP)
    eventually(lambda: product.children("ssserver") not in ([server], []), "another one runs", 70)
    eventually(lambda: told_to_serve(product), "it serves")
    took = time.monotonic() - stopped
    assert scene.client.trace(TRACE4).warp == "on"
    told = [line.partition("ssserver ")[2] for line in product.lines[said:] if "ssserver " in line]
    assert told == ["does not react to clients", "hangs, restarting it"]
    record("C-14: ssserver stopped for good", f"another one serves after {took:.1f} s (limit 60)")
    assert took <= 60


@pytest.mark.timeout(90 + HOLD)
@pytest.mark.parametrize("whom", ["supervisor", "all"])
def test_c14_c15_frozen_it_resumes_and_repairs_little(scene: Scene, whom: str, record: Record) -> None:
    """SIGSTOP to all of them is what a freezer does to timers: time goes on, unseen."""
    product, said = scene.product, len(scene.product.lines)
    children = product.children("ss-warp-wireguard") + product.children("ssserver")
    frozen = [product.pid, *(children if whom == "all" else ())]
    repairs = product.status()["healing"]
    with ExitStack() as stack:
        stack.enter_context(watched(scene.lab))
        pinger = stack.enter_context(Pinger(scene.client, TRACE4, gap=0.02))
        pinger.again(time.monotonic(), 5)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        eventually(lambda: time.monotonic() - begun >= HOLD, "it is over", HOLD + 5)
        for pid in reversed(frozen):
            os.kill(pid, signal.SIGCONT)
        took = pinger.again(time.monotonic(), 20)
        resumed = time.monotonic()
        eventually(lambda: time.monotonic() - resumed >= 3, "what is late would be done by now")
        product.reached("connected", 20)
    assert product.children("ss-warp-wireguard") + product.children("ssserver") == children
    outages = [line for line in product.lines[said:] if "no answer through" in line]
    record(
        f"C-14, C-15: {whom} stopped for {HOLD:.0f} s",
        f"traffic {took:.2f} s after it goes on (limit {1 if whom == 'supervisor' else 5}), "
        f"{len(outages)} outages told",
    )
    assert repairs is None
    assert len(outages) <= 1
    assert took <= (1 if whom == "supervisor" else 5)
