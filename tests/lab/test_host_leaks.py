"""Host placement, full: sessions older than we are, and a failure later on; the rest: tests/lab/leaks."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.host_topology import SSH, dump, host_lab
from tests.lab.hosts import LONGEST, on_host
from tests.lab.probes import Prober
from tests.lab.product import Product, eventually
from tests.lab.scene import reasons
from tests.lab.senders import ANYBODY, THE_SERVERS, Kind
from tests.lab.topology import HOST, WIRE, Lab
from tests.lab.visitors import Session, greeted
from tests.lab.wire import Wire, served

pytestmark = pytest.mark.lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with host_lab(tmp_path / "cloudflare", containers=False) as lab:
        yield lab


def test_sessions_older_than_conntrack_live_on(lab: Lab, tmp_path: Path, record: Record) -> None:
    """Connections are not tracked before ss-warp starts, and this server speaks first."""
    before = dump(lab)
    sessions = [Session(lab, address) for address in HOST]
    with on_host(lab, tmp_path / "state", "full") as product:
        product.serving()
        for session in sessions:
            heard = session.words
            eventually(lambda: session.words > heard + 20, "the server goes on")  # noqa: B023
    assert dump(lab) == before
    assert not any(one.broken for one in sessions)
    longest = max(one.longest for one in sessions)
    record("sessions older than conntrack: longest silence", f"{longest * 1000:.0f} ms (at most 300)")
    assert longest <= LONGEST
    for session in sessions:
        session.close()


def test_after_a_failure_later_on_it_stays_closed(lab: Lab, tmp_path: Path, record: Record) -> None:
    """It has served, then a defect ends it: nothing leaves in clear until it is started and stopped again."""
    before = dump(lab)
    session = Session(lab, HOST[0])
    with on_host(lab, tmp_path / "state", "full") as product:
        product.serving()
        refuse_ssserver(product)
        assert product.ended(30) == 70, product.log
        assert "rejected its configuration" in product.log
        tried = kept_in(lab, (*ANYBODY, *THE_SERVERS))
        assert greeted(lab, HOST[0], SSH), "it is reachable"
    with on_host(lab, tmp_path / "state", "full") as product:
        # A start is refused while another program uses ssserver's user (test_host_refused.py).
        tried += kept_in(lab, ANYBODY, product.serving)
        assert product.stop() == 0
    assert dump(lab) == before
    assert not session.broken
    session.close()
    record(
        "after a failure later on, host, full", f"0 of {tried} probes in clear, before and in the next start"
    )


def kept_in(lab: Lab, kinds: Sequence[Kind], meanwhile: Callable[[], object] = lambda: None) -> int:
    """Return how many probes were tried; assert that none left in clear, though sessions go on."""
    allowed = [*reasons(lab), served("ssh", SSH)]
    with Wire(lab.name("R"), WIRE, allowed) as wire, Prober(lab, kinds) as prober:
        meanwhile()
        tried = prober.probed(20)
    assert not wire.leaks(), [str(one) for one in wire.leaks()[:5]]
    return tried


def refuse_ssserver(product: Product) -> None:
    """Put a program that refuses every configuration in ssserver's place, and end the one that runs."""
    program = shutil.which("ssserver")
    script = "printf '#!/bin/sh\\nexit 78\\n' >/run/refusing; chmod +x /run/refusing"
    inside = ["nsenter", f"--mount=/proc/{product.pid}/ns/mnt", "sh", "-ec"]
    subprocess.run([*inside, f"{script}; mount --bind /run/refusing {program}"], check=True)
    (pid,) = product.children("ssserver")
    os.kill(pid, signal.SIGKILL)
