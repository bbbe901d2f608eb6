"""`ss-warp reconnect` and `status` beside a running product: a new session for certain, another exit perhaps.

H ── R ── F      topology.py; every exit of the emulated Cloudflare is in FRA
"""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cloudflare.config import BULK_PORT
from tests.conftest import Record
from tests.lab.product import eventually
from tests.lab.scene import TRACE4, Scene, serving, watched
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with serving(lab, tmp_path_factory.mktemp("reconnect")) as scene, watched(lab):
        yield scene


def command(scene: Scene, *arguments: str) -> "subprocess.CompletedProcess[str]":
    product = scene.product
    inside = (
        "nsenter",
        "--mount",
        "--root",
        "--target",
        str(product.pid),
        sys.executable,
        "-m",
        "entrypoint",
    )
    environment = {"NETWORK": "own", "WARP_STATE_DIR": str(product.state)}
    return scene.lab.run("H", (*inside, *arguments), environment=environment, check=False, timeout=60)


def test_a_new_session_by_another_port_and_traffic_goes_on(scene: Scene, record: Record) -> None:
    eventually(lambda: all(scene.product.status()["exit"].values()), "both exits")
    before = scene.product.status()
    done = command(scene, "reconnect")
    assert done.returncode == 0, done.stderr
    after = scene.product.status()
    assert after["endpoint"] != before["endpoint"]
    assert after["reconnects"] == {"asked": before["reconnects"]["asked"] + 1, "changed": 0}
    assert f"endpoint {before['endpoint']} → {after['endpoint']}, the same exit 104.28." in done.stdout
    assert "0 of 1 reconnects changed the exit" in done.stdout
    eventually(lambda: scene.reaches(TRACE4), "traffic")
    record("reconnect", done.stdout.splitlines()[0])


def test_until_the_exit_is_where_it_is_wanted_and_not_for_ever(scene: Scene) -> None:
    assert command(scene, "reconnect", "--until-colo", "fra").returncode == 0
    never = command(scene, "reconnect", "--until-colo", "AMS", "--times", "2")
    assert never.returncode == 69
    assert "gave up after 2 reconnects: the exit is at FRA" in never.stderr


def test_until_a_page_loads_through_the_tunnel(scene: Scene) -> None:
    scene.lab.cloudflare.origin.forget()
    done = command(scene, "reconnect", "--until", f"http://{TRACE4}:{BULK_PORT}/bytes/10")
    assert done.returncode == 0, done.stdout + done.stderr
    (page,) = [one for one in scene.lab.cloudflare.origin.seen("http") if one.detail == "/bytes/10"]
    assert page.warp == "on"


def test_status_for_people_and_for_programs(scene: Scene) -> None:
    text = command(scene, "status").stdout
    for part in ("state ", "(FRA, DE), warp=on", "answers ", "IPv4 ", "last 24 h", "interruptions 0"):
        assert part in text
    assert json.loads(command(scene, "status", "--json").stdout)["healthy"] is True
