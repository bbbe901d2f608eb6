"""Pairs of ends, by who asks (they are drawn in ends.py)."""

from collections.abc import Iterator

import pytest

from tests.lab.engine.ends import OURS, STOCK, End, Ends

PAIRS = {"ours asks": (OURS, STOCK), "ours answers": (STOCK, OURS), "ours both": (OURS, OURS)}


def wired(pair: str) -> Iterator[Ends]:
    near, far = PAIRS[pair]
    with Ends(End(0, near), End(1, far)) as ends:
        yield ends


@pytest.fixture(params=PAIRS)
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Every pair in turn."""
    yield from wired(request.param)


@pytest.fixture
def ours() -> Iterator[Ends]:
    """Our engine at both ends."""
    yield from wired("ours both")


@pytest.fixture
def asking() -> Iterator[Ends]:
    """Ours asks, a stock one answers."""
    yield from wired("ours asks")


@pytest.fixture
def answering() -> Iterator[Ends]:
    """A stock one asks, ours answers."""
    yield from wired("ours answers")
