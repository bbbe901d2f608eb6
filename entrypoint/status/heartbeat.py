"""The heartbeat file: written at each answered check, read by `ss-warp healthcheck`.

Light on purpose: the check starts a new Python every few seconds, so nothing big is imported here.
One line: state, CLOCK_BOOTTIME in seconds, how many seconds the beat is good for, reason.
"""

import os
import time

DIRECTORY = "/run/ss-warp"
HEARTBEAT_NAME = "heartbeat"


def now() -> float:
    """Return CLOCK_BOOTTIME: seconds since boot, time asleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def format_beat(state: str, at: float, good_for: float, reason: str) -> str:
    """Return the file's content."""
    return f"{state} {at:.9f} {good_for:g} {' '.join(reason.split())}\n"


def find_problem(text: str, at: float) -> str:
    """Return why the beat read at `at` is no sign of health, empty when it is one."""
    try:
        state, beaten, good_for, *reason = text.split(maxsplit=3)
        age, limit = at - float(beaten), float(good_for)
    except ValueError:
        return "the heartbeat file is not one"
    if state != "connected":
        return f"{state}: {reason[0].strip()}" if reason else state
    if not -0.001 <= age <= limit:  # beats are written to the millisecond
        return f"no answered check for {age:.0f} s; the supervisor does not run or hangs"
    return ""


def healthcheck(directory: "str | os.PathLike[str]" = DIRECTORY) -> tuple[int, str]:
    """Return the exit code (0 healthy, 1 not) and one sentence."""
    try:
        with open(os.path.join(directory, HEARTBEAT_NAME)) as file:  # noqa: PTH118, PTH123 - pathlib is not light
            text = file.read()
    except (OSError, ValueError) as error:
        return 1, f"no heartbeat: {error}"
    problem = find_problem(text, now())
    return (1, problem) if problem else (0, "connected")
