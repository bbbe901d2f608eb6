"""The one judge."""

from ipaddress import ip_address

import pytest

from entrypoint.addresses import Family
from entrypoint.health.probe import Answers, CertificateError, Trace
from entrypoint.health.verdict import Alive, Degraded, Foreign, Silent, Traced, Verdict, is_usable, judge
from tests.unit.health.monitor_bench import refusal

ON = Trace("on", ip_address("104.28.0.1"), "FRA", "DE")
OFF = Trace("off", ip_address("203.0.113.7"), "FRA", "DE")
BOTH: frozenset[Family] = frozenset({4, 6})
V4: frozenset[Family] = frozenset({4})
NEW, PROVEN = Traced(), Traced(proven=True)
DNS = Answers(BOTH, BOTH, thorough=False)
TRACELESS = Answers(BOTH, BOTH, failures=(ConnectionError("refused"),))


def verdict(answers: Answers, before: Traced, *, strict_clock: bool = False) -> Verdict | None:
    return judge(answers, "wg0", before.after(answers), strict_clock=strict_clock)


@pytest.mark.parametrize(
    ("answers", "before", "expected"),
    [
        (DNS, PROVEN, Alive()),
        (Answers(BOTH, V4), PROVEN, Alive(BOTH - V4)),
        (Answers(BOTH, frozenset(), (ON,)), PROVEN, Alive(BOTH)),
        (Answers(BOTH, BOTH, (ON,)), NEW, Alive()),
        (Answers(BOTH, BOTH, (OFF, ON)), NEW, Alive()),
        (DNS, NEW, None),
        (TRACELESS, NEW, None),
        (Answers(BOTH), PROVEN, Silent("no answer through wg0")),
        (Answers(BOTH), NEW, Silent("no answer through wg0")),
        (Answers(BOTH, interrupted=True), PROVEN, None),
        (Answers(BOTH, received=40), PROVEN, Alive(BOTH)),
        (Answers(BOTH, received=40), NEW, Silent("no answer through wg0")),
        (Answers(BOTH, BOTH, (OFF,)), PROVEN, Foreign("wg0 answers, but the trace page says warp=off")),
        (
            Answers(BOTH, BOTH, (Trace("", None, "", ""),)),
            NEW,
            Foreign("wg0 answers, but the trace page says nothing about warp", proven=False),
        ),
    ],
)
def test_what_a_round_means(answers: Answers, before: Traced, expected: Verdict | None) -> None:
    assert verdict(answers, before) == expected


def test_a_page_that_once_said_otherwise_stays_foreign_until_it_says_warp() -> None:
    traced = PROVEN.after(Answers(BOTH, BOTH, (OFF,)))
    assert isinstance(verdict(DNS, traced), Foreign)
    assert verdict(Answers(BOTH, BOTH, (ON,)), traced) == Alive()


def test_three_rounds_of_dns_without_a_trace_are_degraded_and_say_why() -> None:
    traced = PROVEN
    said = []
    for _ in range(3):
        said.append(verdict(TRACELESS, traced))
        traced = traced.after(TRACELESS)
    assert said == [Alive(), Alive(), Degraded("wg0 answers DNS, but the trace page does not load: refused")]
    assert isinstance(verdict(DNS, traced), Degraded), "a light round proves nothing about pages"


def test_an_untrusted_certificate_is_degraded_at_once() -> None:
    refused = Answers(BOTH, BOTH, failures=(CertificateError(refusal(18, "self-signed")),))
    assert isinstance(verdict(refused, NEW), Degraded)


@pytest.mark.parametrize(
    ("offset", "strict", "alive"), [(45, True, False), (45, False, True), (5, True, True)]
)
def test_a_wrong_clock_is_degraded_where_clients_need_it(offset: float, strict: bool, alive: bool) -> None:
    found = verdict(Answers(BOTH, BOTH, (ON,), offset=offset), NEW, strict_clock=strict)
    assert found == (Alive() if alive else Degraded("the clock is 45 s behind"))


def test_only_silence_is_unusable() -> None:
    assert [is_usable(one) for one in (Alive(), Degraded(""), Foreign(""), Silent(""), None)] == [
        *(True, True, True),
        *(False, False),
    ]
