"""A host with the product running on it, for tests that disturb both."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab.client import Client
from tests.lab.host_topology import ADDRESSES, dump, host_lab
from tests.lab.hosts import on_host
from tests.lab.product import Product, eventually
from tests.lab.scene import client_of
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


def refused(product: Product, code: int, *words: str) -> None:
    """It ends with one line of its own that says these words."""
    with product:
        assert product.ended(10) == code, product.log
    lines = [line for line in product.lines if line.startswith("ss-warp: ")]
    assert len(lines) == 1, product.log
    assert all(word in lines[0] for word in words), lines


def settled(lab: Lab, product: Product) -> list[str]:
    """Return the dump once two in a row are the same."""
    seen: list[list[str]] = []

    def steady() -> bool:
        # Of its own accord the kernel gives a TUN a random link-local address.
        chance = r"fe80::[0-9a-f:]+|stable_secret = .*"
        seen.append(sorted(re.sub(chance, "chance", line) for line in dump(lab)))
        return len(seen) > 1 and seen[-1] == seen[-2]

    eventually(steady, "a steady state")
    assert product.process.poll() is None
    return seen[-1]
