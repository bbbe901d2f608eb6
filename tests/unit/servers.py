"""What the tests of ssserver share: a world that serves, and the block of its first run."""

from collections.abc import Iterator

import pytest

from tests.fakes.processes import FakeSsserver
from tests.fakes.world import FakeWorld, in_memory


@pytest.fixture
def world(anyio_backend: str) -> Iterator[FakeWorld]:
    with in_memory() as world:
        yield world


def last(world: FakeWorld) -> FakeSsserver:
    return world.processes.ssservers()[-1]


BLOCK = "Connect to your server with these details:"


async def block_of(world: FakeWorld, capsys: pytest.CaptureFixture[str], **environ: str) -> str:
    capsys.readouterr()
    async with world.serving(**environ):
        pass
    return capsys.readouterr().out
