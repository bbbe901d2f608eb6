"""Docker by its socket. Everything that is made carries one label, and goes when its test ends."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from docker.models.containers import Container
from docker.models.volumes import Volume

from tests.image.compose import IMAGE
from tests.image.example import Example
from tests.image.internet import STANDIN, Internet
from tests.image.made import LABEL, gone
from tests.image.sidecar import Ends

type Run = Callable[..., Container]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/image/" in item.nodeid:
            item.add_marker(pytest.mark.image)


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env(timeout=60)
    except DockerException as error:
        pytest.skip(f"no Docker socket: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> Any:
    return engine.images.get(IMAGE)


@pytest.fixture
def volume(engine: docker.DockerClient) -> Iterator[Volume]:
    made = engine.volumes.create(labels={LABEL: ""})
    yield made
    gone(made)


@pytest.fixture
def run(engine: docker.DockerClient, volume: Volume) -> Iterator[Run]:
    """Start a container, detached; it is removed after the test, running or not, and before the volume."""
    with ExitStack() as stack:

        def start(**arguments: Any) -> Container:
            container = engine.containers.create(labels=[LABEL], detach=True, **arguments)
            stack.callback(gone, container)
            container.start()
            return container

        yield start


@pytest.fixture(scope="session")
def internet(engine: docker.DockerClient) -> Iterator[Internet]:
    with Internet(engine) as made:
        yield made


@pytest.fixture(scope="session")
def sidecar(internet: Internet) -> Iterator[Example]:
    """examples/sidecar, whose sidecar sends all the time what would leak."""
    stand_in = {
        "network": ["sleep", "infinity"],
        "reader": [*STANDIN, "probe", "8080"],
        "db": [*STANDIN, "serve", "5432"],
    }
    with Example(internet, "sidecar", stand_in, hasty=False) as made:
        yield made


@pytest.fixture(scope="session")
def browser(internet: Internet) -> Iterator[Example]:
    """examples/browser, where ss-warp owns the network; its sidecar sends what would leak, too."""
    stand_in = {"browser": [*STANDIN, "probe", "5800"]}
    with Example(internet, "browser", stand_in, overlay=limited, number=2) as made:
        yield made


@pytest.fixture(scope="session")
def ends(browser: Example) -> Iterator[Ends]:
    with ExitStack() as stack:
        yield Ends(browser, stack)


def limited(config: dict[str, Any]) -> None:
    """Give ss-warp a little memory, for a test that takes all of it."""
    config["services"]["ss-warp"] |= {"mem_limit": "300m", "memswap_limit": "300m"}
