"""The state volume goes bad: C-18 on real mounts, and C-16's leftovers; the tunnel runs on what is known."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from entrypoint.linux import state_dir
from tests.cloudflare.client import Cloudflare
from tests.cloudflare.netns import run
from tests.conftest import Record
from tests.lab.product import Product
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab
STATE, BUSY = 74, 75


@pytest.fixture
def cf(lab: Lab) -> Cloudflare:
    lab.cloudflare.forget_calls()
    return lab.cloudflare


@contextmanager
def volume(path: Path, options: str) -> Iterator[Path]:
    """Mount a file system of its own there."""
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "none", str(path))
    try:
        yield path
    finally:
        run("umount", "--lazy", str(path))


def fill(state: Path) -> None:
    """Leave not one byte."""
    with (state / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            return


def crowd(state: Path) -> None:
    """Leave not one inode."""
    try:
        for number in range(10_000):
            (state / f"crowd{number}").touch()
    except OSError:
        return


BAD = {
    # how it is made, how it is spoiled, what a start without an account ends with, and says
    "full": ("size=256k", fill, BUSY, "no space left"),
    "no inodes": ("size=1m,nr_inodes=64", crowd, BUSY, "no space left"),
    "read-only": (
        "size=1m",
        lambda state: run("mount", "-o", "remount,ro", str(state)),
        STATE,
        "the file system is read-only",
    ),
}


def product(lab: Lab, state: Path) -> Product:
    return Product(lab, state, environment={"SHADOWSOCKS": "off"})


@pytest.mark.parametrize("how", BAD)
def test_c_18_a_known_account_runs_from_memory(
    lab: Lab, cf: Cloudflare, tmp_path: Path, how: str, record: Record
) -> None:
    options, spoil, _, _ = BAD[how]
    with volume(tmp_path / "state", options) as state:
        with product(lab, state) as one:
            one.reached("connected")
            assert one.stop() == 0
        before = (state / "account.json").read_bytes()
        spoil(state)
        with product(lab, state) as one:
            assert one.reached("connected")["warp"] == "on"
            assert "continuing with the values in memory" in one.log
            assert one.stop() == 0, "nothing is left undone for it"
        assert (state / "account.json").read_bytes() == before
    assert len(cf.registrations()) == 1
    record(f"C-18: volume {how}, account known", "connected, 0 lost accounts, stop with 0")


@pytest.mark.parametrize("how", BAD)
def test_c_18_without_an_account_nothing_is_registered(
    lab: Lab, cf: Cloudflare, tmp_path: Path, how: str, record: Record
) -> None:
    options, spoil, code, words = BAD[how]
    with volume(tmp_path / "state", options) as state:
        spoil(state)
        with product(lab, state) as one:
            assert one.ended(10) == code
            (line,) = (line for line in one.lines if line.startswith("ss-warp: "))
            assert words in line
    assert cf.calls() == []
    record(f"C-18: volume {how}, no account", f"exit {code} before registering: {words}")


REPLACED = """
import sys
from pathlib import Path
from entrypoint.linux import state_dir
state_dir.replace(Path(sys.argv[1]), b"new")
"""


@pytest.mark.parametrize("call", ["fsync", "write", "rename,renameat,renameat2", "openat"])
def test_c_18_an_input_output_error_leaves_the_old_file(tmp_path: Path, call: str, record: Record) -> None:
    file = tmp_path / "account.json"
    state_dir.replace(file, b"old")
    # strace knows a call by the files behind its descriptors: the directory's for calls with names.
    where = f"--trace-path={tmp_path}" + ("/.account.json.new" if call in ("fsync", "write") else "")
    done = subprocess.run(
        [
            *(
                "strace",
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                where,
                f"--trace={call}",
                f"--inject={call}:error=EIO",
            ),
            *(sys.executable, "-c", REPLACED, str(file)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "input/output error" in done.stderr and "StateError" in done.stderr, done.stderr
    assert file.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["account.json"]
    record(f"C-18: EIO from {call.partition(',')[0]}", "the old file is whole, one sentence")


def test_c_16_s_10_what_a_killed_start_left_half_written_goes_at_the_next(
    lab: Lab, cf: Cloudflare, tmp_path: Path
) -> None:
    """Every length of it is tried in tests/unit/account/test_store_volume.py; here by a real start."""
    with product(lab, tmp_path / "state") as one:
        one.reached("connected")
        one.stop()
        kept = (one.state / "account.json").read_bytes()
        torn = one.state / ".account.json.new"
        torn.write_bytes(kept[: len(kept) // 2])
        one.start().reached("connected")
        assert not torn.exists()
        assert json.loads((one.state / "account.json").read_bytes()) == json.loads(kept)
    assert len(cf.registrations()) == 1
