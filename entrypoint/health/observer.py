"""What the monitor reports, and what it needs of its surroundings."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import anyio

from entrypoint.addresses import Endpoint, Family
from entrypoint.health.diagnosis import AccountCheck, Diagnosis, Outside
from entrypoint.health.ladder import Rung
from entrypoint.health.probe import Trace
from entrypoint.health.verdict import Verdict


class Observer(Protocol):
    """Callbacks for tunnel health events; implemented by the status board. They must not block."""

    def record_answer(self, family: Family | None, trace: Trace | None, round_trip: float) -> None:
        """Note an answer after `round_trip` seconds: a trace, or None for DNS."""

    def show(self, verdict: Verdict) -> None:
        """Show the verdict on a round."""

    def show_repair(self, rung: Rung) -> None:
        """Show the repair that is being tried."""

    def show_reconnect(self, endpoint: Endpoint) -> None:
        """Note that a new exit was requested, and where packets go now."""

    def show_cause(self, cause: Diagnosis | None) -> None:
        """Show what is wrong, None when nothing is or the cause is unknown."""


async def _look_nowhere(endpoint: Endpoint) -> Outside:
    return Outside()


async def _resolve_nothing(answered: bool) -> tuple[tuple[Endpoint, ...], str]:
    return (), ""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the monitor needs of its surroundings.

    `restore` puts back what a recreated interface lacks; `doubt` is called when the account itself is
    suspected, `account` returns what the API last said about it, `account_checked` waits for that.
    `look_outside` and `resolve` look outside the tunnel, the latter for the endpoints' names, if a resolver
    answers there: it returns addresses, and the names that no resolver knows.
    """

    restore: Callable[[], Awaitable[object]]
    doubt: Callable[[], None]
    look_outside: Callable[[Endpoint], Awaitable[Outside]] = _look_nowhere
    resolve: Callable[[bool], Awaitable[tuple[tuple[Endpoint, ...], str]]] = _resolve_nothing
    account: Callable[[], AccountCheck] = AccountCheck
    account_checked: Callable[[], Awaitable[None]] = anyio.sleep_forever
