"""Secrets, S-01 to S-04: only in files of mode 0600, in the first run's block, and in memory."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Record
from tests.lab.product import Product
from tests.lab.scene import Scene, serving
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with serving(lab, tmp_path_factory.mktemp("secrets"), {"LOG_LEVEL": "debug"}) as scene:
        scene.product.said("Registering accepts")
        yield scene


def secrets(scene: Scene) -> dict[str, str]:
    account: dict[str, Any] = json.loads((scene.product.state / "account.json").read_text())["account"]
    device = account["device"]
    return {
        "private key": account["private_key"],
        "token": device["token"],
        "licence key": device["account"]["license"],
        "password": scene.product.secrets()["password"],
    }


def family(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from family(int(child))


def test_the_log_shows_the_password_in_the_block_alone(scene: Scene) -> None:
    rules = [number for number, line in enumerate(scene.product.lines) if set(line) == {"─"}]
    assert len(rules) == 2
    inside = "\n".join(scene.product.lines[rules[0] : rules[1]])
    outside = "\n".join(scene.product.lines[: rules[0]] + scene.product.lines[rules[1] :])
    known = secrets(scene)
    assert known["password"] in inside
    assert [name for name, value in known.items() if value in outside] == []
    assert [name for name, value in known.items() if value in inside] == ["password"]


def test_s_01_s_04_no_process_shows_a_secret_or_leaves_a_core(scene: Scene, record: Record) -> None:
    shown = []
    pids = list(family(scene.product.pid))
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}
    assert {"ss-warp-wiregua", "ssserver"} <= names
    for pid in pids:
        for file in ("cmdline", "environ"):
            content = Path(f"/proc/{pid}/{file}").read_bytes()
            shown += [
                (pid, file, name) for name, value in secrets(scene).items() if value.encode() in content
            ]
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits), pid
    assert shown == []
    record(
        "S-04", f"{len(secrets(scene))} secrets, arguments and environment of {len(pids)} processes: 0 hits"
    )


def test_s_03_the_volume_is_for_its_owner_alone(scene: Scene) -> None:
    state = scene.product.state
    assert oct(state.stat().st_mode & 0o777) == "0o700"
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in state.iterdir()}
    assert {"account.json", "shadowsocks.json", "network.json", "lock"} <= set(modes)
    assert set(modes.values()) == {"0o600"}, modes


def test_s_01_nothing_that_can_be_asked_shows_a_secret(scene: Scene, record: Record) -> None:
    """Status, health and metrics, commands, names of files."""
    said = [json.dumps(scene.product.status()), *(file.name for file in scene.product.state.iterdir())]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with scene.lab.inside("H"):
        for page in ("healthz", "status", "metrics"):
            with opener.open(f"http://127.0.0.1:9999/{page}", timeout=2) as answer:
                said.append(answer.read().decode())
    for words in (["account", "show"], ["settings"], ["explain", "1.1.1.1"]):
        done = scene.lab.run(
            "H",
            [sys.executable, "-m", "entrypoint", *words],
            environment={"WARP_STATE_DIR": str(scene.product.state), "NETWORK": "own"},
        )
        said.append(done.stdout + done.stderr)
    assert all(len(text) > 3 for text in said)
    hits = [name for name, value in secrets(scene).items() for text in said if value in text]
    assert hits == []
    record("S-01", f"{len(secrets(scene))} secrets, {len(said)} texts of status, pages and commands: 0 hits")


def test_s_03_no_file_is_ever_open_to_others(lab: Lab, tmp_path: Path, record: Record) -> None:
    """Every file that a first start creates is created with mode 0600, whatever the umask: by strace."""
    trace = tmp_path / "trace"
    with Product(lab, tmp_path / "state", "C", environment={"SHADOWSOCKS": "off"}) as product:
        watching = ["strace", "-f", "-qq", "-e", "trace=openat", "-o", str(trace), "-p", str(product.pid)]
        with subprocess.Popen(watching, stderr=subprocess.DEVNULL) as tracer:
            product.reached("connected", 40)
            product.stop()
            tracer.wait(10)
    opened = re.findall(r'openat\(\d+, "([^"]+)", [^)]*O_CREAT[^)]*, (0\d+)\) = \d', trace.read_text())
    ours = {name: mode for name, mode in opened if not name.startswith("/")}
    assert ".account.json.new" in ours
    assert set(ours.values()) == {"0600"}, ours
    record("S-03", f"{len(opened)} files created in a first start, all with mode 0600")
