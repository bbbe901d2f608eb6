"""The one policy for everything that is retried: exponential backoff with jitter, on the caller's clock.

    async for attempt in retrying(clock.sleep, first=0.2, longest=30, demanded=after(OSError)):
        with attempt:
            await start()

A pause is what the failure demands *plus* a random part whose bound doubles with each attempt. Without the
random part, a fleet that failed together would come back together; below the demand, a server that asked
for peace would be asked again too early.
"""

import inspect
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from entrypoint.errors import DefectError

MOST_JITTER = 1800.0
"""Seconds of jitter at most on top of a demand: half of the longest Retry-After that is obeyed."""

type Demand = Callable[[BaseException], float | None]
"""Seconds that a failure demands before the next attempt; None when another attempt cannot help."""

type BeforePause = Callable[[BaseException, float], Awaitable[None] | None]
"""Takes each failure and the seconds until the next attempt."""


def retrying(
    sleep: Callable[[float], Awaitable[None]],
    *,
    first: float,
    longest: float,
    demanded: Demand,
    before_pause: BeforePause = lambda error, pause: None,
) -> AsyncRetrying:
    """Return attempts without end.

    Without a demand the first pause is between half of `first` and `first` seconds, the next is twice that,
    up to `longest`. A failure that no attempt can help is raised as it is.
    """
    failures = Counter[bool]()

    def pause(state: RetryCallState) -> float:
        demand = demanded(_failure(state)) or 0
        bound = max(longest, MOST_JITTER) if demand else longest
        # An outage of minutes must not make the first demand after it one of half an hour.
        failures[demand > 0] += 1
        backoff = min(max(first, demand / 2) * 2.0 ** min(failures[demand > 0] - 1, 60), bound)
        return demand + random.uniform(backoff / 2, backoff)  # noqa: S311 - jitter is no secret

    async def announce(state: RetryCallState) -> None:
        if inspect.isawaitable(said := before_pause(_failure(state), state.upcoming_sleep)):
            await said

    return AsyncRetrying(
        sleep=sleep,
        wait=pause,
        retry=retry_if_exception(lambda error: demanded(error) is not None),
        before_sleep=announce,
        reraise=True,
    )


def after(*kinds: type[BaseException]) -> Demand:
    """Return a demand for failures of these kinds: no pause but the policy's own."""
    return lambda error: 0 if isinstance(error, kinds) else None


def _failure(state: RetryCallState) -> BaseException:
    failure = state.outcome and state.outcome.exception()
    return failure or DefectError("tenacity announced a pause without a failure")
