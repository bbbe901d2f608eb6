"""Starts, stops, and all that lies between two of them (L-06, L-12, L-23 to L-25), in topology.py's lab.

On a host a clean stop lets everything go: there only what ssserver itself sends is looked for across it.
"""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.client import Client
from tests.lab.leaks.flows import flows
from tests.lab.leaks.injected import everybody
from tests.lab.leaks.stage import PROBES, REPEAT
from tests.lab.namespace import closed
from tests.lab.probes import Pinger, Prober
from tests.lab.product import Product, eventually
from tests.lab.scene import TRACE4, Scene, client_of, reasons, watched
from tests.lab.senders import SSSERVER, light
from tests.lab.topology import WIRE, Lab
from tests.lab.wire import Wire
from tests.pace import longer

pytestmark = pytest.mark.lab

ROUNDS = max(1, REPEAT // 20)
"""Of ten transitions each: LAB_REPEAT=400 makes the 200 of the catalogue."""

PLACES = [("own", "full"), ("own", "proxy"), ("host", "full"), ("host", "proxy")]
TRACKED = (
    "table inet neighbours { chain c { type filter hook output priority 0; ct state invalid counter; }; }"
)


@dataclass(frozen=True, slots=True)
class Life:
    """One volume in one place, and what must not leave in clear there."""

    lab: Lab
    directory: Path
    placement: str
    mode: str

    @property
    def name(self) -> str:
        return f"{self.placement}, {self.mode}"

    def product(self, **more: str) -> Product:
        environment = {"NETWORK": self.placement, "ROUTE_MODE": self.mode, **more}
        return Product(self.lab, self.directory / "state", environment=environment)

    @contextmanager
    def probed(self) -> Iterator[Prober]:
        """Probe all the time, every 2 ms; a host promises nothing across a stop."""
        kinds = light(everybody(full=self.mode == "full")) if self.placement == "own" else ()
        with watched(self.lab, first_run=True), Prober(self.lab, kinds, gap=0.002) as prober:
            yield prober


@pytest.fixture(params=PLACES, ids="-".join)
def life(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[Life]:
    placement, mode = request.param
    yield Life(lab, tmp_path, placement, mode)
    lab.cloudflare.edge.heal()
    lab.run("H", ["nft", "flush", "ruleset"])


def through(client: Client, lab: Lab, product: Product, what: str) -> None:
    """Wait until a request comes out of WARP again."""
    scene = Scene(lab, product, client)
    try:
        eventually(lambda: scene.reaches(TRACE4), f"traffic after: {what}", 30)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{product.log}\n{product.status()}") from None


@pytest.mark.timeout(120 + 60 * ROUNDS)
@pytest.mark.parametrize(
    "life", [PLACES[0], pytest.param(PLACES[2], marks=pytest.mark.vm)], ids="-".join, indirect=True
)
def test_l06_every_transition(life: Life, record: Record) -> None:
    done = 0
    lab = life.lab
    with life.product() as product:  # the password is made, and a namespace of our own is closed from here on
        product.serving()
    with ExitStack() as stack:
        client = stack.enter_context(client_of(lab, product, life.directory))
        prober = stack.enter_context(life.probed())
        stack.enter_context(Pinger(client, TRACE4, gap=0.01))

        def came(product: Product, what: str) -> None:
            nonlocal done
            done += 1
            through(client, lab, product, what)

        for _ in range(ROUNDS):
            with life.product() as product:
                came(product.serving(), "start")
                lab.cloudflare.edge.restart()
                came(product, "reconnect")
                port = int(product.status()["endpoint"].rpartition(":")[2])
                lab.cloudflare.edge.block(ports=[port])
                came(product, "the next endpoint")
                lab.cloudflare.edge.heal()
                rotated(life)
            with life.product() as product:
                came(product.serving(), "stop, another key, start")
                before = product.account()
            (life.directory / "state" / "account.json").unlink()
            with life.product(WIREGUARD_MTU="1320") as product:
                came(product.serving(), "stop, another account and other settings, start")
                assert product.account() != before
                product.stop(signal.SIGKILL)
            with life.product() as product:
                came(product.serving(), "killed, start")
            done += 4  # three stops and a kill
        tried = prober.tried
    others = f"0 of {tried} probes and " if tried else ""
    record(f"L-06, {life.name}, {done} transitions", f"{others}nothing of ssserver's in clear")


def rotated(life: Life) -> None:
    """Have the key changed at the next start."""
    environment = {
        "WARP_STATE_DIR": str(life.directory / "state"),
        "WARP_API_CA_FILE": str(life.lab.cloudflare.ca_file),
    }
    argv = [sys.executable, "-m", "entrypoint", "account", "rotate-key"]
    life.lab.run("H", argv, environment=environment)


@pytest.mark.parametrize("life", PLACES[:3], ids="-".join, indirect=True)
def test_l12_connections_older_than_the_kill_switch_are_cut(life: Life, record: Record) -> None:
    """Everyone's in `full`, ssserver's in both modes, while connections are tracked already.

    On a host a start is refused while ssserver's user has connections (test_host_refused.py).
    """
    users = {("own", "full"): (0, SSSERVER), ("own", "proxy"): (SSSERVER,), ("host", "full"): (0,)}
    uids = users[life.placement, life.mode]
    life.lab.run("H", ["nft", "-f", "-"], text=TRACKED)
    with flows(life.lab, uids) as older:
        with Wire(life.lab.name("R"), WIRE, reasons(life.lab)) as wire:
            eventually(lambda: older.seen(wire) >= {one.name for one in older.all}, "all of them flow")
        with life.product() as product:
            product.serving()
            with Wire(life.lab.name("R"), WIRE, reasons(life.lab)) as wire:
                before = older.tried
                eventually(lambda: older.tried >= before + PROBES, "they are tried", 30)
            assert not older.seen(wire), [str(one) for one in wire.leaks()[:5]]
    tried = older.tried - before
    record(f"L-12, {life.name}", f"0 of {tried} packets of {len(older.all)} older connections after arming")


@pytest.mark.vm
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("life", PLACES[:2], ids="-".join, indirect=True)
def test_l23_a_sidecar_that_lives_on_is_kept_in(life: Life, how: signal.Signals, record: Record) -> None:
    """The namespace is still there; the same for containers is in tests/image."""
    kinds = everybody(full=life.mode == "full")
    with life.product() as product:
        product.serving()
        with watched(life.lab), Prober(life.lab, kinds) as prober:
            prober.probed(10)
            product.stop(how)
            stopped = time.monotonic()
            before = prober.tried
            tried = prober.probed(PROBES // 3) - before
            took = time.monotonic() - stopped
    with life.product() as product:
        product.serving()  # and takes back what a killed one left
    record(f"L-23, {life.name}, {how.name}", f"0 of {tried} probes in clear in {took:.1f} s")


@pytest.mark.parametrize("life", [PLACES[0], PLACES[2]], ids="-".join, indirect=True)
def test_l24_the_interface_is_there_first(life: Life, record: Record) -> None:
    """After a reboot clients come before we do: the first answer is WARP's, and so is each that follows.

    The namespace is a new one, with its interface up. A sidecar's probes begin once we have closed it.
    """
    with life.product() as product:
        product.serving()
    life.lab.rebuild("H")
    answers: list[str] = []
    with watched(life.lab), client_of(life.lab, product, life.directory) as client:

        def asked(count: int) -> bool:
            with suppress(OSError, HTTPException):
                answers.append(client.trace(TRACE4, timeout=longer(0.5)).warp)
            return len(answers) >= count

        refused = sum(not asked(1) for _ in range(20))
        with product:
            if life.placement == "own":
                eventually(lambda: closed(life.lab), "it is closed")
            with life.probed() as prober:
                eventually(lambda: asked(20), "twenty answers", 30)
                tried = prober.tried
    assert {*answers} == {"on"}
    record(
        f"L-24, {life.name}",
        f"{refused} of 20 refused before, {len(answers)} through WARP after; 0 of {tried} probes in clear",
    )


def stored(product: Product) -> tuple[object, object]:
    """Return account and secrets, but not whether the first run's block has been printed by now."""
    secrets = product.secrets()
    return product.account(), {name: secrets[name] for name in secrets if name != "shown"}


@pytest.mark.parametrize("life", [PLACES[0], PLACES[2]], ids="-".join, indirect=True)
def test_l25_an_upgrade(life: Life, record: Record) -> None:
    """The new one comes while the old one runs, is refused, and comes again when it is stopped."""
    with ExitStack() as stack:
        old = stack.enter_context(life.product()).serving()
        client = stack.enter_context(client_of(life.lab, old, life.directory))
        prober = stack.enter_context(replace(life).probed())
        pinger = stack.enter_context(Pinger(client, TRACE4, gap=0.01))
        pinger.again(time.monotonic(), 10)
        kept = stored(old)
        with life.product(HEALTH_SERVER_ADDRESS="127.0.0.1:9998") as early:
            assert early.ended() == 75, early.log
        pinger.again(time.monotonic(), 2)
        stopped = time.monotonic()
        assert old.stop() == 0
        new = stack.enter_context(life.product()).serving()
        through(client, life.lab, new, "upgrade")
        took = time.monotonic() - stopped
        assert stored(new) == kept
        tried = prober.tried
    record(
        f"L-25, {life.name}", f"outage {took:.1f} s (limit 5 s), 0 of {tried} probes in clear, account kept"
    )
    assert took <= 5
