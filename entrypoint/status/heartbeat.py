"""The heartbeat file: written after each answered check, read by `ss-warp healthcheck`.

Import nothing big: the check starts a new Python every few seconds.
One line: verdict, CLOCK_BOOTTIME in seconds, seconds until the beat expires, reason.
"""

import os
import time

DIRECTORY = "/run/ss-warp"
HEARTBEAT_NAME = "heartbeat"

HEALTHY = ("connected", "foreign")
"""Verdicts that count as healthy; `foreign` after the trace page has called the tunnel WARP before."""


LOG_HINT = "is the container running? check its log (docker compose logs)"


def now() -> float:
    """Return CLOCK_BOOTTIME: seconds since boot, time asleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def format_beat(state: str, at: float, good_for: float, reason: str) -> str:
    """Return the file's content."""
    return f"{state} {at:.9f} {good_for:g} {' '.join(reason.split())}\n"


def find_problem(text: str, at: float) -> str:
    """Return why the beat read at `at` does not prove health; empty if it does."""
    try:
        state, beaten, good_for, *reason = text.split(maxsplit=3)
        age, limit = at - float(beaten), float(good_for)
    except ValueError:
        return "the heartbeat file is malformed"
    if state not in HEALTHY:
        return f"{state}: {reason[0].strip()}" if reason else state
    if not -0.001 <= age <= limit:  # beats are written to the millisecond
        return f"no answered check for {age:.0f} s; the supervisor is not running or is hung"
    return ""


def healthcheck(directory: "str | os.PathLike[str]" = DIRECTORY) -> tuple[int, str]:
    """Return the exit code (0 healthy, 1 not) and one sentence."""
    try:
        with open(os.path.join(directory, HEARTBEAT_NAME)) as file:  # noqa: PTH118, PTH123 - pathlib is not light
            text = file.read()
    except (OSError, ValueError) as error:
        return 1, f"no heartbeat: {error}"
    problem = find_problem(text, now())
    return (1, problem) if problem else (0, text.split(maxsplit=1)[0])
