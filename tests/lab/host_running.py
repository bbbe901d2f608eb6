"""A host with the product running on it, for tests that disturb both."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab.client import Client
from tests.lab.host_topology import ADDRESSES, host_lab
from tests.lab.product import Product, eventually
from tests.lab.scene import client_of
from tests.lab.test_host import on_host
from tests.lab.topology import Lab
from tests.lab.visitors import Session

SERVER = ADDRESSES[1]
"""Where the client asks for Shadowsocks: an address that stays."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with host_lab(tmp_path_factory.mktemp("cloudflare")) as lab:
        # As on every host with systemd: the second address survives the first.
        lab.sysctl("H", ipv4__conf__eth0__promote_secondaries=1)
        yield lab


@pytest.fixture(scope="module", params=["full", "proxy"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def product(mode: str, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with on_host(lab, tmp_path_factory.mktemp(mode) / "state", mode) as product:
        yield product.serving()


@pytest.fixture
def client(lab: Lab, product: Product, tmp_path: Path) -> Iterator[Client]:
    with client_of(lab, product, tmp_path, SERVER) as client:
        yield client


@contextmanager
def logged_in(lab: Lab, *addresses: object) -> Iterator[list[Session]]:
    """Sessions that must still go on at the end."""
    with ExitStack() as stack:
        sessions = [Session(lab, one) for one in addresses or ADDRESSES]
        for one in sessions:
            stack.callback(one.close)
        yield sessions
        for one in sessions:
            heard = one.words
            eventually(lambda: one.words > heard + 2, "the session goes on")  # noqa: B023
        assert not any(one.broken for one in sessions)


def again(condition: Callable[[], bool], what: str, within: float) -> float:
    """Return how long it takes until this is so."""
    begun = time.monotonic()
    eventually(condition, what, within)
    return time.monotonic() - begun


def kernel(lab: Lab) -> list[str]:
    """Return rules and nftables alone: what is compared again and again."""
    argv = (
        "ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all; nft -s list ruleset"
    )
    return sorted(lab.run("H", ["sh", "-c", argv]).stdout.splitlines())
