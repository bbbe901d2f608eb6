"""Two grounds with two modes each, built once for all cases."""

from collections.abc import Iterator

import pytest

from tests.lab.leaks.stage import Ground, Stage, ground, staged


@pytest.fixture(scope="package", name="ground", params=["own", "host"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(str(request.param), tmp_path_factory.mktemp("cloudflare")) as made:
        yield made


@pytest.fixture(scope="package", params=["full", "proxy"])
def stage(
    request: pytest.FixtureRequest, ground: Ground, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    with staged(ground, str(request.param), tmp_path_factory.mktemp("stage")) as made:
        yield made
