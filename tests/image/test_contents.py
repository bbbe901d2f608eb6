"""What is in the image that ships, and what is not."""

import json
import re
from typing import Any

import pytest

import entrypoint
from tests.image.compose import IMAGE, ROOT
from tests.image.conftest import Run

LARGEST = 150_000_000
"""Bytes, as `docker images` counts them."""


@pytest.fixture
def shell(run: Run) -> Any:
    """Run a shell line in the image as root, without network; return what it prints."""

    def lines(script: str) -> list[str]:
        container = run(image=IMAGE, entrypoint=["sh", "-c", script], network_mode="none")
        code = container.wait(timeout=60)["StatusCode"]
        printed: str = container.logs().decode()
        assert code == 0, printed
        return printed.splitlines()

    return lines


def test_it_is_small(image: Any) -> None:
    assert image.attrs["Size"] <= LARGEST, f"{image.attrs['Size'] / 1e6:.1f} MB"


def test_no_file_lends_its_owners_rights(shell: Any) -> None:
    assert shell("find / -xdev -type f -perm /6000") == []


def test_nothing_to_build_or_install_with(shell: Any) -> None:
    names = "gcc g++ cc c++ ld as make cmake cargo rustc go pip pip3 curl wget git"
    assert shell(f"for name in {names}; do command -v $name; done; true") == []
    python = (
        "import importlib.util as i; print([n for n in ('pip', 'ensurepip', 'setuptools') if i.find_spec(n)])"
    )
    assert shell(f'/opt/ss-warp/bin/python -c "{python}"') == ["[]"]


def test_no_cache_and_no_test_tool(shell: Any) -> None:
    places = "/var/lib/apt/lists /var/cache /var/log /root/.cache /root/.cargo /tmp /var/tmp"
    assert shell(f"find {places} -type f -size +0 2>/dev/null; true") == []
    assert shell("ls -d /src /build /out 2>/dev/null; command -v sslocal pytest mypy ruff; true") == []


def test_nothing_can_be_written_by_everybody(shell: Any) -> None:
    found = shell("find / -xdev -perm -0002 ! -type l ! -type c ! -path '/proc/*'")
    assert set(found) <= {"/tmp", "/var/tmp", "/run/lock", "/dev/shm", "/dev/mqueue"}


def test_the_packages_are_those_locked(shell: Any) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    locked = {
        (name.lower().replace("_", "-"), version)
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE)
    }
    python = (
        "import importlib.metadata as m, json;"
        "print(json.dumps([[d.name.lower().replace('_', '-'), d.version] for d in m.distributions()]))"
    )
    [printed] = shell(f'/opt/ss-warp/bin/python -c "{python}"')
    assert {tuple(one) for one in json.loads(printed)} == locked


def test_bytecode_of_the_whole_product_is_there(shell: Any) -> None:
    """The root is read-only: what is not compiled now would be compiled at every start."""
    compiled = r"find /usr/local/lib/ss-warp -name '*.pyc' -printf '%P\n'"
    have = {re.sub(r"__pycache__/(\w+)\.cpython-\d+\.pyc", r"\1.py", line) for line in shell(compiled)}
    sources = set(shell(r"find /usr/local/lib/ss-warp -name '*.py' -printf '%P\n'"))
    assert sources
    assert sources - have == set()


def test_the_engines_are_the_versions_we_say(shell: Any) -> None:
    assert shell("ssserver --version") == ["shadowsocks 1.25.0"]
    assert shell("ss-warp-wireguard --version") == ["ss-warp-wireguard 0.1.0 (gotatun 0.10.2)"]


@pytest.mark.parametrize("program", ["nft", "setpriv", "ss-warp", "ss-warp-wireguard", "ssserver", "tini"])
def test_what_the_supervisor_starts_is_there(shell: Any, program: str) -> None:
    assert len(shell(f"command -v {program}")) == 1


def test_ssserver_has_a_user_of_its_own(shell: Any) -> None:
    assert shell("getent passwd 58388") == ["ssserver:x:58388:58388::/nonexistent:/usr/sbin/nologin"]
    assert shell("stat -c '%U %a' /var/lib/ss-warp") == ["root 700"]


def test_labels_say_what_it_is(image: Any) -> None:
    labels = image.labels
    assert labels["org.opencontainers.image.version"] == entrypoint.__version__
    assert labels["org.opencontainers.image.source"].startswith("https://")
    assert labels["org.opencontainers.image.licenses"] == "MIT"


def test_what_runs_and_what_it_serves(image: Any) -> None:
    config = image.attrs["Config"]
    init, *_, python, _, module = config["Entrypoint"]
    assert (init, python, module) == ("/usr/bin/tini", "/opt/ss-warp/bin/python", "entrypoint")
    assert "-g" not in config["Entrypoint"], "children are ended in order, by us"
    assert config["Cmd"] == ["run"]
    assert set(config["ExposedPorts"]) == {"8388/tcp", "8388/udp"}
    assert set(config["Volumes"]) == {"/var/lib/ss-warp"}
    assert not [one for one in config["Env"] if re.search("PASSWORD|TOKEN|SECRET|KEY", one)]
