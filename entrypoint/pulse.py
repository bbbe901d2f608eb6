"""Whether ssserver still lives, by the only proof there is: it reacts to a client."""

import logging
from collections.abc import Awaitable, Callable

from entrypoint.ports import Clock

PATIENCE = 1.5
"""Seconds that it gets for a reaction."""

PAUSE = 0.5
"""Seconds between two questions when one had no answer."""

MISSED = 2
"""Questions in a row without an answer after which it is said not to serve."""

HUNG = 20
"""... after which, without a line printed either, it is ended: 40 s. Who was only stopped for half a minute
goes on, and who has no file descriptor left says so, and keeps the connections that it has."""

log = logging.getLogger("ss-warp")


async def hung(
    ask: Callable[[], Awaitable[bool | None]],
    said: Callable[[], int],
    tell: Callable[[bool], None],
    clock: Clock,
    interval: float,
) -> None:
    """Ask every `interval` seconds; return when it hangs.

    `ask` answers None when there is nobody to ask; `said` is how many lines were printed so far; `tell` is
    told whether it serves. Silence counts for nothing before the first answer: a firewall of the host's
    may be in the way.
    """
    answer: bool | None = None
    proven, missed, silent, heard = False, 0, 0, said()
    while silent < HUNG:
        await clock.sleep(PAUSE if answer is None or missed else interval)
        answer, before, heard = await ask(), heard, said()
        match answer:
            case None:
                proven, missed, silent = False, 0, 0
            case True:
                if missed >= MISSED:
                    log.info("ssserver answers again")
                    tell(True)
                proven, missed, silent = True, 0, 0
            case False if proven:
                missed += 1
                silent = silent + 1 if heard == before else 0
                if missed == MISSED:
                    log.warning("ssserver does not answer")
                    tell(False)
    log.warning("ssserver hangs: starting it again")
