"""examples/swarm in a Swarm of one node, from outside.

What only a second node would show is that nodes are updated one after the other.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import docker
import pytest
from docker.models.containers import Container

from tests.conftest import Record
from tests.image.compose import IMAGE
from tests.image.internet import Internet
from tests.image.sidecar import by_warp
from tests.image.swarm import BRIDGE, SOCKS, STACK, Swarm
from tests.lab.product import eventually

ROLLED_BACK = 30.0


@pytest.fixture(scope="module")
def swarm(engine: docker.DockerClient) -> Iterator[Swarm]:
    if engine.info()["Swarm"]["LocalNodeState"] != "inactive" or engine.networks.list(names=[BRIDGE.name]):
        pytest.skip("this machine is, or was, part of a Swarm")
    with Internet(engine, BRIDGE) as internet:
        with Swarm(internet, engine.images.get(IMAGE).id) as made:
            made.deploy()
            made.healthy()
            yield made
        for kind in (engine.volumes, engine.networks):
            assert not kind.list(filters={"label": f"com.docker.stack.namespace={STACK}"})
        assert engine.info()["Swarm"]["LocalNodeState"] == "inactive"
    assert not engine.networks.list(names=[BRIDGE.name])


@pytest.fixture(scope="module")
def client(swarm: Swarm) -> Iterator[Container]:
    with ExitStack() as stack:
        link = swarm.healthy().exec_run(["ss-warp", "link"]).output.decode().split()
        yield swarm.client(stack, next(word for word in link if word.startswith("ss://")))


def reaches(swarm: Swarm, client: Container, timeout: float = 5.0) -> bool:
    """Say whether the client comes out of WARP, by every name of the origin."""
    told = swarm.internet.asked(client, f"127.0.0.1:{SOCKS}", timeout=timeout)
    return by_warp(told)


def pause(swarm: Swarm, client: Container, change: Callable[[], None], again: Callable[[], bool]) -> float:
    """Return how long the client had no answer while something changes."""
    last = time.monotonic()
    change()

    def back() -> bool:
        nonlocal last
        if again():
            return reaches(swarm, client, 1.0)
        last = time.monotonic() if reaches(swarm, client, 1.0) else last
        return False

    eventually(back, "the client is back", 60)
    return time.monotonic() - last


def replaced(swarm: Swarm, old: Container) -> bool:
    """Say whether another task runs."""
    return bool([one for one in swarm.tasks() if one.id != old.id])


def test_the_password_is_the_secret_and_the_client_comes_in_by_the_nodes_port(
    swarm: Swarm, client: Container
) -> None:
    eventually(lambda: reaches(swarm, client), "the client is there", 10)
    assert swarm.internet.registrations() == 1
    assert "ss://" not in swarm.logs()


def test_an_update_is_a_pause(swarm: Swarm, client: Container, record: Record) -> None:
    old = swarm.healthy()
    took = pause(swarm, client, partial(swarm.deploy, LOG_LEVEL="debug"), partial(replaced, swarm, old))
    record("pause of an update in a Swarm", f"{took:.1f} s")
    eventually(lambda: swarm.update() == "completed", "the update is complete", 30)


def test_a_bad_update_is_rolled_back(swarm: Swarm, client: Container, record: Record) -> None:
    began = time.monotonic()
    swarm.deploy(SHADOWSOCKS_METHOD="none-such")
    eventually(lambda: swarm.update() == "rollback_completed", "rolled back", ROLLED_BACK)
    swarm.healthy()
    record("a bad update is rolled back after", f"{time.monotonic() - began:.1f} s")
    eventually(lambda: reaches(swarm, client), "the client is back", 10)


@pytest.mark.parametrize(
    ("away", "back"),
    [
        (("--availability", "drain"), ("--availability", "active")),
        (("--label-rm", "ss-warp"), ("--label-add", "ss-warp=true")),
    ],
    ids=["drained", "without the label"],
)
def test_a_node_is_left_and_taken_again(
    swarm: Swarm, client: Container, record: Record, away: tuple[str, str], back: tuple[str, str]
) -> None:
    swarm.node(*away)
    eventually(lambda: not swarm.tasks(), "no task", 20)
    began = time.monotonic()
    swarm.node(*back)
    swarm.healthy()
    eventually(lambda: reaches(swarm, client), "the client is back", 10)
    record(f"{away[1]}: serves again after", f"{time.monotonic() - began:.1f} s")


def test_all_that_was_one_account_and_nothing_in_clear(swarm: Swarm) -> None:
    assert swarm.internet.registrations() == 1
    heard = swarm.internet.heard()
    assert heard.counts["wireguard"] > 0
    assert heard.leaks == {}
