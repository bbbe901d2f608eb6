"""One Cloudflare for all machines of a worker, one account for all starts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.machines.built import ways_back
from tests.lab.topology import Lab


@pytest.fixture(scope="session", name="surroundings")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("cloudflare")) as lab:
        ways_back(lab)
        yield lab


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("volume") / "state"
