"""Host placement, full: sessions older than we are. What leaves, and what not: tests/lab/leaks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.host_topology import dump, host_lab
from tests.lab.hosts import LONGEST, on_host
from tests.lab.product import eventually
from tests.lab.topology import HOST, Lab
from tests.lab.visitors import Session

pytestmark = pytest.mark.lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with host_lab(tmp_path / "cloudflare", containers=False) as lab:
        yield lab


def test_sessions_older_than_conntrack_live_on(lab: Lab, tmp_path: Path, record: Record) -> None:
    """Nobody tracks connections here before we come, and this server speaks first."""
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
