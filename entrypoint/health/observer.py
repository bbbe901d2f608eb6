"""Who is told what became of the tunnel; the status board is one."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from entrypoint.health.checks import Trace
    from entrypoint.health.ladder import Rung


class Observer(Protocol):
    """Who is told; calls must not block."""

    def answered(self, trace: "Trace | None") -> None:
        """Take note of an answer: a trace (its `ip` tells the family), or None for a DNS answer."""

    def silent(self, reason: str) -> None:
        """Take note that the tunnel does not answer, or answers that it is not WARP."""

    def healing(self, rung: "Rung") -> None:
        """Take note that a rung is being climbed."""
