"""`ss-warp reconnect`: ask the running supervisor for a new exit, and say what has changed."""

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from entrypoint.commands.status import read_status
from entrypoint.errors import StateError, UnhealableError
from entrypoint.linux import state_dir
from entrypoint.linux.http import request, url_site
from entrypoint.linux.world import Bound, World
from entrypoint.settings import Settings
from entrypoint.status.heartbeat import LOG_HINT
from entrypoint.status.states import USABLE

NEW_EXIT_WITHIN = 30.0
"""Seconds until the trace must have come through a new session."""

BETWEEN = 6.0
"""Seconds between two requests; the supervisor ignores what comes within five."""

TEST_TIMEOUT = 10.0
"""Seconds that the page of `--until` gets."""

type Wrong = Callable[[Mapping[str, Any]], Awaitable[str]]
"""Takes the status; returns what is wrong with this exit, "" if nothing is."""


async def reconnect(
    directory: Path,
    settings: Settings,
    world: World,
    wrong: Wrong,
    *,
    times: int,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
    kill: Callable[[int, int], None] = os.kill,
) -> None:
    """Ask for a new exit until nothing is `wrong` with it, at most so many `times`; say what has changed.

    Raises StateError without a running supervisor, UnhealableError when no exit would do.
    """
    _require_running(settings)
    found = ""
    for attempt in range(times):
        if attempt:
            await world.clock.sleep(BETWEEN)
        before = read_status(directory)
        after = await _reconnected(directory, world, before, kill)
        say(_difference(before, after))
        found = await wrong(after)
        if not found:
            asked, changed = after["reconnects"]["asked"], after["reconnects"]["changed"]
            say(f"the key stays the same; so far {changed} of {asked} reconnects changed the exit")
            return
        say(f"{found}; {attempt + 1} of {times} tried")
    raise UnhealableError(
        f"gave up after {times} reconnects: {found}",
        "try again another day: Cloudflare chooses the exit, near this server",
    )


def _require_running(settings: Settings) -> None:
    try:
        with state_dir.lock(settings.account.state_dir):
            pass
    except state_dir.HeldError:
        return
    raise StateError("ss-warp is not running here", LOG_HINT)


async def _reconnected(
    directory: Path, world: World, before: Mapping[str, Any], kill: Callable[[int, int], None]
) -> dict[str, Any]:
    begun = now = world.clock.monotonic()
    asked, due = False, begun
    while now < begun + NEW_EXIT_WITHIN:
        if not asked and now >= due:
            kill(before["pid"], signal.SIGUSR1)
            due = now + BETWEEN  # the last one may have come too early
        await world.clock.sleep(0.2)
        now, status = world.clock.monotonic(), read_status(directory)
        asked = status["reconnects"]["asked"] > before["reconnects"]["asked"]
        if asked and status["traced"] and status["state"] in USABLE:
            await world.clock.sleep(1)  # the other family's trace is on its way
            return read_status(directory)
    raise UnhealableError(
        f"no new session within {NEW_EXIT_WITHIN:.0f} s: {read_status(directory)['reason']}",
        "run `ss-warp doctor`: during an outage reconnect does nothing",
    )


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    def place(status: Mapping[str, Any]) -> str:
        return " ".join(filter(None, (*status["exit"].values(), status["colo"], status["country"])))

    endpoint = (
        f"the same endpoint {after['endpoint']}"
        if before["endpoint"] == after["endpoint"]
        else f"endpoint {before['endpoint']} → {after['endpoint']}"
    )
    exits = (
        f"exit {place(before)} → {place(after)}"
        if place(before) != place(after)
        else f"the same exit {place(after)}"
    )
    return f"new session, {endpoint}, {exits}"


def in_colo(wanted: str) -> Wrong:
    """Return a test for the data centre."""

    async def passes(status: Mapping[str, Any]) -> str:
        return "" if status["colo"] == wanted.upper() else f"the exit is at {status['colo']}"

    return passes


def loads(url: str, settings: Settings, world: World) -> Wrong:
    """Return a test for a page that must load through the tunnel."""

    async def passes(status: Mapping[str, Any]) -> str:
        way, host = Bound(settings.tunnel.interface), url_site(url)[0]
        try:
            addresses = await world.http.lookup(host, settings.dns.addresses, way)
            await request(world.http, "GET", url, way, addresses, limit=TEST_TIMEOUT)
        except OSError as error:
            return f"the page does not load: {error}"
        return ""

    return passes


async def _nothing(status: Mapping[str, Any]) -> str:
    return ""


ANY_EXIT: Wrong = _nothing
