"""State files: whole or not at all, locked, and errors that say what to do."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.errors import BusyError, Error, StateError
from entrypoint.linux.state_dir import MAX_READ, explained, lock, read, replace
from tests.fakes.deaths import outcomes


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_was_written_is_read_back_with_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    assert read(path) is None
    replace(path, b"one")
    replace(path, b"two")
    assert read(path) == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(tmp_path) == ["account.json"]


def test_a_mode_is_set_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        replace(tmp_path / "status.json", b"x", mode=0o644)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "status.json").stat().st_mode) == 0o644


def test_a_wider_mode_is_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    path.write_bytes(b"old")
    path.chmod(0o644)
    replace(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_leftovers_of_a_killed_predecessor_go(tmp_path: Path) -> None:
    leftover = tmp_path / ".account.json.new"
    leftover.write_bytes(b"torn")
    replace(tmp_path / "account.json", b"whole")
    assert names(tmp_path) == ["account.json"]
    leftover.write_bytes(b"torn")
    (tmp_path / ".foreign").write_bytes(b"not ours")
    with lock(tmp_path):
        assert names(tmp_path) == [".foreign", "account.json", "lock"]


CRASH = """
import sys
from pathlib import Path
from entrypoint.linux import state_dir
from tests.fakes.deaths import killed_at
path, when = Path(sys.argv[1]), 0
while True:
    when += 1
    life = lambda: state_dir.replace(path, b"new" * 1000)
    status = killed_at(when, (state_dir,), life, events=("line", "return", "exception"))
    content = path.read_bytes()
    assert content in (b"old" * 1000, b"new" * 1000), content[:20]
    print(status, content[:3].decode())
    if status == 0:
        break
    path.write_bytes(b"old" * 1000)
"""


def test_killed_at_any_line_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    path.write_bytes(b"old" * 1000)
    printed = outcomes(CRASH, path, timeout=60)
    assert len(printed) > 20
    assert printed[-1] == "0 new"
    assert {"9 old", "9 new"} <= set(printed)
    assert names(tmp_path) == ["account.json"]  # the last, whole run has tidied up after all others


def test_the_lock_is_for_one(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(BusyError) as caught, lock(tmp_path):
        pass
    assert str(tmp_path) in caught.value.message
    assert f"process {os.getpid()} of {os.uname().nodename}" in caught.value.message
    assert "\n" not in str(caught.value)
    with lock(tmp_path):  # free again
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom entrypoint.linux.state_dir import lock\n"
        "with lock(pathlib.Path(sys.argv[1])):\n print('held', flush=True)\n sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match=f"process {holder.pid} of"), lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with lock(tmp_path):
            pass


def test_an_error_in_the_block_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), lock(tmp_path):
        raise FileNotFoundError
    with lock(tmp_path):
        pass


def test_directories_that_cannot_hold_the_state(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)
    cases = {
        tmp_path / "missing": "does not exist",
        tmp_path / "file": "is not a directory",
        tmp_path / "link": "is a symbolic link",
        Path("relative"): "is not an absolute path",
    }
    for directory, words in cases.items():
        actions: tuple[Callable[[Path], object], ...] = (
            lambda path: read(path / "account.json"),
            lambda path: replace(path / "account.json", b""),
            lambda path: lock(path).__enter__(),
        )
        for action in actions:
            with pytest.raises(StateError, match=words) as caught:
                action(directory)
            assert caught.value.hint
    assert names(tmp_path) == ["file", "link"]


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "target").write_bytes(b"elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name, words in {"fifo": "not a regular", "directory": "not a regular", "link": "symbolic"}.items():
        with pytest.raises(StateError, match=words):
            read(tmp_path / name)


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"elsewhere")
    (tmp_path / "account.json").symlink_to(tmp_path / "target")
    replace(tmp_path / "account.json", b"ours")
    assert (tmp_path / "target").read_bytes() == b"elsewhere"
    assert read(tmp_path / "account.json") == b"ours"


def test_a_huge_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    with (tmp_path / "account.json").open("wb") as file:
        file.truncate(1 << 40)
    assert len(read(tmp_path / "account.json") or b"") == MAX_READ


def test_a_directory_in_the_files_place(tmp_path: Path) -> None:
    (tmp_path / "account.json").mkdir()
    with pytest.raises(StateError, match=r"account\.json"):
        replace(tmp_path / "account.json", b"")
    assert names(tmp_path) == ["account.json"]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, BusyError, "no space left"),
        (errno.EDQUOT, BusyError, "no space left"),
        (errno.EROFS, StateError, "mount a writable volume at /state"),
        (errno.EACCES, StateError, "writable for uid"),
        (errno.EPERM, StateError, "writable for uid"),
        (errno.EIO, StateError, "the disk may be failing"),
        (errno.ELOOP, StateError, "symbolic link"),
        (errno.ENOLCK, StateError, "No locks available"),
    ],
)
def test_each_failure_has_its_remedy(number: int, kind: type[Error], words: str) -> None:
    error = explained(OSError(number, os.strerror(number)), Path("/state/account.json"))
    assert type(error) is kind
    assert words in str(error)
    assert "/state/account.json" in str(error)


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    path.write_bytes(b"old")
    code = (
        "import resource, sys, pathlib\nfrom entrypoint.errors import Error\n"
        "from entrypoint.linux.state_dir import replace\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n replace(pathlib.Path(sys.argv[1]), b'x' * 1000)\nexcept Error as e:\n print(e.exit_code, e)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout.startswith(f"74 {path}: File too large"), run
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["account.json"]
