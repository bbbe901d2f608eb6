"""A start where some endpoints do not answer: another port, the other family."""

import time
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.product import Product, eventually
from tests.lab.scene import TRACE4, TRACE6, Scene, client_of, watched
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    "blocked", [{"ports": [2408]}, {"addresses": ["162.159.192.1"]}], ids=["port 2408", "IPv4"]
)
def test_it_connects_by_what_is_not_blocked(
    blocked: dict[str, list[int | str]], tmp_path: Path, record: Record
) -> None:
    """The second try has another port and another address, so it already connects.

    The engine has a socket of one family, and takes another for an endpoint of the other.
    """
    by = "[2606:4700:d0::a29f:c001]:500"
    with Lab(tmp_path / "cloudflare") as lab, watched(lab, first_run=True):
        # The first device answers at every endpoint: rules may be set before it is there.
        lab.cloudflare.edge.block(**blocked)  # type: ignore[arg-type]
        with Product(lab, tmp_path / "state") as product:
            product.serving(40)
            took = time.monotonic() - product.started_at
            eventually(lambda: product.status()["endpoint"] == by, f"endpoint {by}", 15)
            with client_of(lab, product, tmp_path) as client:
                scene = Scene(lab, product, client)
                assert scene.reaches(TRACE4)
                assert scene.reaches(TRACE6)
            assert len(lab.cloudflare.registrations()) == 1
    record(f"start without {', '.join(map(str, *blocked.values()))}", f"serves by {by} after {took:.1f} s")
