"""A share of a processor for some processes: a control group of their own, of version 1 or 2."""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

PERIOD = 10_000
"""Microseconds: short, so that whoever has used its share is not missed for long."""


@contextmanager
def share_of(pids: list[int], share: float) -> Iterator[None]:
    """Let these processes and their children have so much of a processor together. Raises OSError."""
    home, rest = _groups()
    group = home / f"bench{os.getpid()}-{pids[0]}"
    group.mkdir()
    try:
        quota = round(share * PERIOD)
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota} {PERIOD}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        _move(pids, group)
        yield
    finally:
        _move(_inside(group), rest)
        group.rmdir()


@cache
def _groups() -> tuple[Path, Path]:
    """Mount the hierarchy; return where a group may be made, and where all other processes are."""
    # A container's own mount is read-only.
    mounted = Path(tempfile.mkdtemp())
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            subprocess.run(["mount", "-t", "cgroup", "-o", controllers, "none", mounted], check=True)
            home = mounted / path.strip("/")
            return home, home
    subprocess.run(["mount", "-t", "cgroup2", "none", mounted], check=True)
    rest = mounted / "rest"
    rest.mkdir(exist_ok=True)
    _move(_inside(mounted), rest)  # a group that has processes cannot hand out shares
    (mounted / "cgroup.subtree_control").write_text("+cpu")
    return mounted, rest


def _inside(group: Path) -> list[int]:
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


def _move(pids: Iterable[int], group: Path) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            (group / "cgroup.procs").write_text(str(pid))
