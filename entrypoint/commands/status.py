"""`ss-warp status`: what the running supervisor shows."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from entrypoint.errors import StateError
from entrypoint.status.board import STATUS_NAME
from entrypoint.status.heartbeat import LOG_HINT, healthcheck

WATCH_EVERY = 2.0
"""Seconds between two looks of `status --watch`."""


def read_status(directory: Path) -> dict[str, Any]:
    """Return the status as written by the supervisor; one that hangs is not healthy, whatever it wrote.

    Raises StateError.
    """
    path = directory / STATUS_NAME
    try:
        # The supervisor writes this file at every change: reading it needs neither a socket nor a lock.
        status: dict[str, Any] = json.loads(path.read_text())
        code, problem = healthcheck(directory)
        if status["healthy"] and code:
            status |= {"healthy": False, "health": "stale", "reason": problem, "cause": None}
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}", LOG_HINT) from error
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(f"cannot read {path}: damaged, or written by another version", LOG_HINT) from error
    return status


def status_text(status: Mapping[str, Any], now: float | None = None) -> str:
    """Format the status object for people at `now`, in seconds since 1970."""
    written = _seconds(status["time"])
    late = max(0, round((written if now is None else now) - written))
    exits = [address for address in status["exit"].values() if address]
    places = ", ".join(one for one in (status["colo"], status["country"]) if one)
    offered, day = status["shadowsocks"], status["day"]
    rows = {"state": f"{status['health']} since {status['since']}: {status['reason']}"}
    if cause := status["cause"]:
        rows |= {"cause": cause["sentence"], "remedy": cause["remedy"]}
    if status["healing"]:
        rows["healing"] = f"{status['healing']['rung'] or 'waiting'}, {status['healing']['tried']} tried"
    rows |= {
        "exit": f"{', '.join(exits) or 'unknown'}{f' ({places})' if places else ''}, "
        f"warp={status['warp'] or 'unknown'}",
        "tunnel": f"{status['implementation'] or 'no device'} to {status['endpoint'] or 'no endpoint'}",
        "reserved": status["reserved"] or "off",
        **({"junk": status["junk"]} if status["junk"] else {}),
        "handshake": _ago(status["handshake_age"], late),
        "answers": _answers(status, written, late),
        "traffic": f"{_size(status['rx_bytes'])} received, {_size(status['tx_bytes'])} sent",
        "account": status["account"]["kind"] or "none",
        "shadowsocks": f"{offered['method'] or 'off'} on {', '.join(offered['listening']) or 'nothing'}",
    }
    if offered["users"]:
        rows["users"] = ", ".join(offered["users"])
    rows["last 24 h"] = f"|{day['strip']}|"
    rows["interruptions"] = str(day["interruptions"])
    if day["interruptions"]:
        rows["interruptions"] += f", {day['seconds']} s in all, last {day['last']}: {day['last_reason']}"
    return "\n".join(f"{name:13} {value}" for name, value in rows.items())


def _answers(status: Mapping[str, Any], written: float, late: int) -> str:
    if status["answer_age"] is None:
        return "none yet"
    families = [
        f"{name.replace('ipv', 'IPv')} {_ago(None if at is None else round(written - _seconds(at)), late)}"
        for name, at in status["families"].items()
    ]
    return f"{_ago(status['answer_age'], late)} in {status['round_trip_ms']} ms; {', '.join(families)}"


def _ago(age: int | None, late: int) -> str:
    return "never" if age is None else f"{age + late} s ago"


def _seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


def watch(
    directory: Path,
    *,
    pause: Callable[[float], None] = time.sleep,
    show: Callable[[str], None] = lambda text: print(text, flush=True),
) -> None:
    """Show the status on a cleared screen every WATCH_EVERY seconds until Ctrl-C."""
    clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
    try:
        while True:
            try:
                text = status_text(read_status(directory), time.time())
            except StateError as error:  # while the supervisor starts again
                text = str(error)
            show(f"{clear}{text}\n")
            pause(WATCH_EVERY)
    except KeyboardInterrupt:
        return
