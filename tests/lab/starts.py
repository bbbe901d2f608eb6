"""How long a start takes until nothing gets out, seen on the wire."""

import sys
from pathlib import Path

from tests.lab.probes import Prober
from tests.lab.product import Product, eventually
from tests.lab.scene import reasons
from tests.lab.senders import MARKED, UNBOUND, light
from tests.lab.topology import WIRE, Lab
from tests.lab.wire import Wire

NOTE_AND_BECOME = """
import os, sys, time
with open(sys.argv[1], "w") as note:
    note.write(str(time.monotonic()))
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""The last thing before the product's own exec is the note of the time."""


def as_new(lab: Lab) -> None:
    """Take away what the last life left closed, as in a new container."""
    lab.run("H", ["nft", "flush", "ruleset"])


def blocked_after(lab: Lab, state: Path) -> float:
    """Start the product on a kept account beside a neighbour that sends every millisecond, IPv4 and IPv6.

    Return the seconds from exec to the last of its probes in clear; nothing else may leave.
    """
    note = state.with_name("executed")
    with Wire(lab.name("R"), WIRE, reasons(lab)) as wire, Prober(lab, light(UNBOUND)) as prober:
        eventually(lambda: prober.tried > 40, "probes")
        product = Product(lab, state)
        product.tracer = (sys.executable, "-SE", "-c", NOTE_AND_BECOME, str(note))
        with product:
            product.serving()
        leaks = wire.leaks()
    executed = float(note.read_text())
    assert all(MARKED.search(one.payload) for one in leaks), "the neighbour's alone"
    assert leaks[0].time < executed, "before the start, probes pass"
    return max(0.0, leaks[-1].time - executed)


CHANGING = ("history.json", "endpoints.json")


def contents(state: Path) -> dict[str, bytes]:
    """Return what a volume keeps; `lock` names its holder, CHANGING is a record of what happened."""
    return {file.name: file.read_bytes() for file in state.iterdir() if file.name not in {"lock", *CHANGING}}
