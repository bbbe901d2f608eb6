"""Stopped or killed at any moment: what was there before is there, and nothing else but our closed table.

C-01, C-08, C-11.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cloudflare.faults import hang
from tests.conftest import Record
from tests.lab.namespace import closed, differences, dump, furnish
from tests.lab.probes import Load
from tests.lab.product import Product, eventually
from tests.lab.scene import TRACE4, TRACE6, Scene, client_of
from tests.lab.starts import contents
from tests.lab.topology import Lab
from tests.pace import fewer, longer

pytestmark = pytest.mark.lab

MOMENTS = [*(n / 20 for n in range(1, 17)), 1.0, 1.5, 3.0]
"""Seconds after the start."""
CONNECTIONS = fewer(200)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("cloudflare")) as lab:
        furnish(lab)
        yield lab


@pytest.fixture(scope="module")
def state(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with an account."""
    directory = tmp_path_factory.mktemp("kept") / "state"
    with Product(lab, directory) as product:
        product.serving()
    return directory


@contextmanager
def as_before(lab: Lab) -> Iterator[None]:
    before = dump(lab)
    assert "table inet neighbour" in before
    yield
    assert differences(before, dump(lab)) == []


def handles_sigterm(product: Product) -> bool:
    """Say whether Python has taken over the signal; before that tini makes 0 of the death by it."""
    status = Path(f"/proc/{product.pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("mode", ["full", "proxy"])
def test_c01_sigterm_at_any_moment(lab: Lab, state: Path, mode: str, record: Record) -> None:
    took, reached = [], set()
    for moment in MOMENTS:
        with as_before(lab), Product(lab, state, environment={"ROUTE_MODE": mode}) as product:
            threading.Event().wait(moment)
            ours = handles_sigterm(product)
            reached.add(product.status().get("state"))
            signalled = time.monotonic()
            code = product.stop()
            took.append(time.monotonic() - signalled)
            assert code == 0 or (code == -signal.SIGTERM and not ours), (
                f"after {moment} s: {code}\n{product.log}"
            )
            assert "Traceback" not in product.log, product.log
        assert not ours or moment < 0.2 or closed(lab)
    assert reached >= {None, "connected"}
    record(
        f"C-01, {mode}: SIGTERM at {len(MOMENTS)} moments",
        f"exit 0 within {max(took):.2f} s (worst; limit 5 s)",
    )


@pytest.mark.vm
def test_c01_sigterm_while_it_serves_under_load(
    lab: Lab, state: Path, tmp_path: Path, record: Record
) -> None:
    with as_before(lab), Product(lab, state) as product:
        product.serving()
        with client_of(lab, product, tmp_path) as client, Load(client, TRACE4) as load, ExitStack() as stack:
            for _ in range(CONNECTIONS):
                stack.enter_context(client.tcp(TRACE4, 80))
            load.flows()
            signalled = time.monotonic()
            assert product.stop() == 0
        record(
            f"C-01: SIGTERM, load and {CONNECTIONS} connections",
            f"exit 0 within {time.monotonic() - signalled:.2f} s (limit 5 s)",
        )
        assert "Traceback" not in product.log
    assert closed(lab)


def test_c01_sigterm_while_the_api_hangs(lab: Lab, tmp_path: Path, record: Record) -> None:
    lab.cloudflare.fault(hang().only("POST"))
    with as_before(lab), Product(lab, tmp_path / "state") as product:
        product.reached("registering")
        eventually(lambda: "pending" in product.account(), "the key is kept first")
        signalled = time.monotonic()
        assert product.stop() == 0
        record(
            "C-01: SIGTERM while the API hangs",
            f"exit 0 within {time.monotonic() - signalled:.2f} s (limit 5 s)",
        )
        assert "Traceback" not in product.log
    lab.cloudflare.heal()
    assert closed(lab)


def alive(pids: list[int]) -> bool:
    return any(Path(f"/proc/{pid}/comm").exists() for pid in pids)


@pytest.mark.vm
@pytest.mark.parametrize("mode", ["full", "proxy"])
def test_c08_sigkill_and_the_next_start(
    lab: Lab, state: Path, tmp_path: Path, mode: str, record: Record
) -> None:
    environment = {"ROUTE_MODE": mode}
    with as_before(lab):
        product = Product(lab, state, environment=environment).start().serving()
        children = product.children("ss-warp-wireguard") + product.children("ssserver")
        assert len(children) == (2 if product.status()["implementation"] == "userspace" else 1)
        killed = time.monotonic()
        assert product.stop(signal.SIGKILL) == -signal.SIGKILL
        eventually(lambda: not alive(children), "the children die too", 1)
        gone = time.monotonic() - killed
        left = dump(lab)
        assert "wg0" in left, "a killed supervisor takes nothing back"
        with Product(lab, state, environment=environment) as product:
            product.serving()
            took = time.monotonic() - product.started_at
            with client_of(lab, product, tmp_path) as client:
                scene = Scene(lab, product, client)
                eventually(lambda: scene.reaches(TRACE4), "IPv4")
                eventually(lambda: scene.reaches(TRACE6), "IPv6")
            assert product.stop() == 0
    assert closed(lab)
    record(
        f"C-08, {mode}: SIGKILL",
        f"children dead after {gone:.2f} s, the next start serves after {took:.2f} s (limit 3)",
    )
    assert took <= longer(3)


def test_c11_what_a_killed_predecessor_left_in_files(lab: Lab, state: Path, record: Record) -> None:
    """Half-written files, a lock that names a process that lives, a dead engine's socket."""
    kept = contents(state)
    with as_before(lab), Product(lab, state) as first:
        first.serving()
        first.stop(signal.SIGKILL)
        for name in kept:
            (state / f".{name}.new").write_bytes(b"half of it")
        (state / "lock").write_text("process 1 of somewhere")
        product = Product(lab, state)
        stale = "import socket; socket.socket(socket.AF_UNIX).bind('/run/wireguard/wg0.sock')"
        product.prelude = f'mkdir /run/wireguard && {sys.executable} -c "{stale}"'
        with product:
            product.serving()
            took = time.monotonic() - product.started_at
            assert product.stop() == 0
    assert contents(state) == kept
    record("C-11: stale files, lock and socket", f"serves after {took:.2f} s (limit 3)")
    assert took <= 3
