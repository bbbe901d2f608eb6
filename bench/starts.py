"""From nothing to the first byte, and to closed: each start is a process of its own on a kept account."""

import json
import os
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen

from bench import singbox
from bench.lanes import GVISOR, OURS, PEERS, Lane, sink
from bench.samples import Notes, Samples
from tests.lab import stock
from tests.lab.client import shadowsocks_client
from tests.lab.product import Product
from tests.lab.scene import client_of
from tests.lab.starts import as_new, blocked_after
from tests.lab.topology import HOST, Lab

PATIENCE = 30.0
"""Seconds until a start has failed."""


def start(directory: Path, rounds: int, seconds: float) -> Samples:
    """Measure cold start to the first byte, exec to blocked, and the size of the image."""
    notes = Notes()
    with Lab(directory / "cloudflare") as lab, sink(lab):
        kept = directory / "state"
        with Product(lab, kept) as product:
            product.serving()
            assert product.stop() == 0
        as_new(lab)
        accounts = {name: stock.register(lab, "H") for name in PEERS}
        for number in range(rounds):
            names = (OURS, *PEERS)
            for name in (*names[number % 3 :], *names[: number % 3]):
                as_new(lab)
                if name == OURS:
                    notes.add("cold start", name, _ours(lab, kept, directory))
                else:
                    file = directory / "sing-box.json"
                    kind: singbox.Stack = "gvisor" if name == GVISOR else "system"
                    file.write_text(singbox.config(accounts[name], kind))
                    notes.add("cold start", name, _peer(lab, file, directory))
            as_new(lab)
            notes.add("exec to blocked", OURS, 1e3 * blocked_after(lab, kept))
    notes.add("image", OURS, int(os.environ["IMAGE_SIZE"]) / 1e6)
    return notes.done()


def _ours(lab: Lab, kept: Path, directory: Path) -> float:
    product = Product(lab, kept)
    with client_of(lab, product, directory), impatient(lab) as asking, product:
        try:
            took = arrival(asking) - product.started_at
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{product.log}") from None
        product.serving()
        assert product.stop() == 0
    return took


def _peer(lab: Lab, file: Path, directory: Path) -> float:
    server = (HOST[0], singbox.METHOD, singbox.PASSWORD)
    with ExitStack() as stack:
        stack.enter_context(shadowsocks_client(lab, directory, *server, port=singbox.PORT))
        asking = stack.enter_context(impatient(lab))
        begun = time.monotonic()
        stack.enter_context(singbox.running(lab, file))
        return arrival(asking) - begun


@contextmanager
def impatient(lab: Lab) -> Iterator["Popen[bytes]"]:
    """Ask again and again, overlapping, from now on."""
    asking = Lane("", lab, "C", socks=True).start("first")
    assert asking.stdout is not None
    try:
        assert asking.stdout.readline() == b"asking\n"
        yield asking
    finally:
        asking.kill()
        asking.communicate()


def arrival(asking: "Popen[bytes]") -> float:
    """Wait for the first byte; return when it came (CLOCK_MONOTONIC). Raises TimeoutError."""
    assert asking.stdout is not None
    if not select.select([asking.stdout], [], [], PATIENCE)[0]:
        raise TimeoutError(f"no byte within {PATIENCE:g} s")
    return float(json.loads(asking.stdout.readline())["at"])
