"""What processes of others took: processor time and memory."""

import time
from collections.abc import Iterable
from pathlib import Path


def seconds(pids: Iterable[int]) -> float:
    """Return the processor time of these so far, by the clocks of the processes (clock_getcpuclockid(3))."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def megabytes(pids: Iterable[int]) -> float:
    """Return the sum of their resident memory; what they share counts for each."""
    return sum(_resident(pid) for pid in pids) / 1000


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    # proc(5) says kB and means KiB.
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024 // 1000


def supervisor(pids: Iterable[int]) -> int:
    """Return the one that is ss-warp's supervisor. Raises StopIteration when there is none."""
    return next(pid for pid in pids if b"entrypoint" in Path(f"/proc/{pid}/cmdline").read_bytes())
