"""Lives that end at a chosen line. They are forked, which wants a process without threads: `outcomes`."""

import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

KILLED = 9
"""The exit code of who came to the line; who did not ends with 0."""


def killed_at(
    when: int,
    watched: Collection[ModuleType],
    life: Callable[[], object],
    events: Collection[str] = ("line",),
) -> int:
    """Live in a child that ends, without a word, at the `when`th event of these modules; return its code.

    `events` are those of sys.settrace within a function.
    """
    files, seen = {module.__file__ for module in watched}, 0

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        seen += event in events
        if seen == when:
            os._exit(KILLED)
        return local

    child = os.fork()
    if not child:
        sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename in files else None)
        life()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcomes(program: str, place: Path, timeout: float) -> list[str]:
    """Run a program in a process of its own, with `place` as its argument; return the lines it prints."""
    run = subprocess.run(
        [sys.executable, "-c", program, str(place)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()
