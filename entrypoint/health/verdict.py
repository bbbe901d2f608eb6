"""The one judge: what a round of answers means. Board, /healthz, status, metrics and log show its verdict."""

from dataclasses import dataclass, replace
from typing import assert_never

from entrypoint.addresses import Family
from entrypoint.health.probe import Answers, CertificateError

TRACELESS = 3
"""Rounds in a row with DNS but no trace after which the tunnel is degraded; one may be a hiccup."""

CLOCK_TOLERANCE = 20.0
"""Seconds the clock may be off: Shadowsocks 2022 refuses clients beyond 30."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Requests are answered through WARP. `quiet` families brought nothing in this round."""

    quiet: frozenset[Family] = frozenset()


@dataclass(frozen=True, slots=True)
class Degraded:
    """Something answers, but clients will notice what does not."""

    reason: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """The tunnel carries traffic, but the trace page does not call it WARP; no repair can change the page."""

    reason: str
    proven: bool = True
    """Whether the page called it WARP before."""


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing is answered."""

    reason: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """Nothing is answered, and repairs are unlikely to help: the cause lies outside."""

    reason: str


type Verdict = Alive | Degraded | Foreign | Silent | Blocked


@dataclass(frozen=True, slots=True)
class Traced:
    """What the trace pages have shown so far; light rounds do not ask them.

    `unanswered` counts rounds in a row that asked for traces and got only DNS, `why` is their last failure.
    `offset` is Cloudflare's clock minus ours, in seconds.
    """

    proven: bool = False
    foreign: str = ""
    unanswered: int = 0
    why: str = ""
    certificate: bool = False
    misdated: bool = False
    """Whether the certificate is good, but not at this time."""
    offset: float | None = None

    def after(self, answers: Answers) -> "Traced":
        """Return the record with one more round."""
        offset = answers.offset if answers.offset is not None else self.offset
        if answers.active:
            return Traced(proven=True, offset=offset)
        if answers.traces:
            said = answers.traces[0].warp
            return replace(
                self, foreign=f"warp={said}" if said else "nothing about warp", unanswered=0, offset=offset
            )
        if answers.thorough and answers.families and not answers.interrupted:
            why = next((str(one) for one in answers.failures if str(one)), "no answer")
            refused = [one for one in answers.failures if isinstance(one, CertificateError)]
            return replace(
                self,
                unanswered=self.unanswered + 1,
                why=why,
                certificate=bool(refused),
                misdated=any(one.misdated for one in refused),
            )
        return self

    @property
    def known(self) -> bool:
        """Whether enough was seen to judge the tunnel by any answer."""
        return self.proven or bool(self.foreign) or self.unanswered >= TRACELESS or self.certificate


def judge(answers: Answers, device: str, traced: Traced, *, strict_clock: bool = False) -> Verdict | None:
    """Return the verdict on a round, `traced` included; None if the round proves nothing yet."""
    if not (answers.traces or answers.families or (answers.received and traced.known)):
        return None if answers.interrupted else Silent(f"no answer through {device}")
    if not traced.known:
        return None
    if traced.foreign:
        return Foreign(f"{device} answers, but the trace page says {traced.foreign}", traced.proven)
    if traced.certificate or traced.unanswered >= TRACELESS:
        return Degraded(f"{device} answers DNS, but the trace page does not load: {traced.why}")
    if strict_clock and traced.offset is not None and abs(traced.offset) > CLOCK_TOLERANCE:
        return Degraded(clock_sentence(traced.offset))
    return Alive(answers.asked - answers.families)


def clock_sentence(offset: float) -> str:
    """Return the sentence on a clock that Cloudflare's is `offset` seconds ahead of."""
    return f"the clock is {abs(offset):.0f} s {'behind' if offset > 0 else 'ahead'}"


def is_usable(verdict: Verdict | None) -> bool:
    """Return whether the tunnel carries anything."""
    match verdict:
        case Alive() | Degraded() | Foreign():
            return True
        case Silent() | Blocked() | None:
            return False
        case _:
            assert_never(verdict)
