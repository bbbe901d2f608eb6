"""Each kind of trouble is made to happen, and is one cause, one sentence in the log, and the right remedy."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from entrypoint.health.diagnosis import AccountCheck, Cause, Diagnosis, Evidence, Outside, diagnose
from entrypoint.linux.kernel_objects import Guise
from tests.unit.health.monitor_bench import Bench, bench, quiet_httpx, refusal, watching

__all__ = ["bench", "quiet_httpx"]  # fixtures
pytestmark = pytest.mark.anyio

GONE = Diagnosis(Cause.ACCOUNT_GONE, "the API does not know this device")
REKEYED = Diagnosis(Cause.KEY_REFUSED, "the device's key was changed elsewhere")
IN_ORDER = AccountCheck(1.0)
REACHED = Outside(udp=True)
NO_UDP = Outside(udp=False, web=True)


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (Evidence(Outside(uplink=False), account=AccountCheck(1, GONE)), Cause.UPLINK_GONE),
        (Evidence(Outside(udp=False, web=False)), Cause.UPLINK_GONE),
        (Evidence(REACHED, account=AccountCheck(1, GONE)), Cause.ACCOUNT_GONE),
        (Evidence(REACHED, account=AccountCheck(1, REKEYED)), Cause.KEY_REFUSED),
        (Evidence(REACHED), None),
        (Evidence(REACHED, account=IN_ORDER), Cause.WIREGUARD_BLOCKED),
        (Evidence(REACHED, account=AccountCheck(1, None, "no answer")), Cause.WIREGUARD_BLOCKED),
        (Evidence(NO_UDP), Cause.UDP_BLOCKED),
        (Evidence(replace(REACHED, rejected="UDP is rejected")), Cause.UDP_BLOCKED),
        (Evidence(NO_UDP, unresolved="engage.example"), Cause.PROVIDER_DNS),
        (Evidence(REACHED, handshake=True, reserved=True, account=IN_ORDER), Cause.RESERVED_FILTERED),
        (Evidence(REACHED, handshake=True, reserved=True, proven=True, account=IN_ORDER), None),
        (Evidence(REACHED, handshake=True, account=IN_ORDER), None),
        (Evidence(REACHED, offset=2e5), Cause.CLOCK_WRONG),
        (Evidence(REACHED, offset=45), None),
        (Evidence(replace(REACHED, misdated="expired")), Cause.CLOCK_WRONG),
        (Evidence(answers=True, certificate="not yet valid", misdated=True), Cause.CLOCK_WRONG),
        (Evidence(answers=True, certificate="self-signed"), Cause.CERTIFICATE),
        (Evidence(answers=True), None),
    ],
)
def test_what_the_evidence_shows(seen: Evidence, cause: Cause | None) -> None:
    found = diagnose(seen)
    assert (found and found.cause) is cause


def test_a_clock_half_a_minute_off_matters_to_2022_clients_alone() -> None:
    found = diagnose(Evidence(answers=True, offset=45), strict_clock=True)
    assert found and (found.cause, found.sentence) == (Cause.CLOCK_WRONG, "the clock is 45 s behind")


def test_what_the_api_could_not_say_is_part_of_the_sentence() -> None:
    found = diagnose(Evidence(REACHED, account=AccountCheck(1, None, "no answer in time")))
    assert found and found.sentence.endswith("the account could not be verified: no answer in time")


def test_every_cause_has_a_remedy_of_its_own() -> None:
    assert len({one.value for one in Cause}) == len(Cause) == 9


# The same, made to happen to a watched tunnel.


@dataclass(frozen=True)
class Illness:
    """`make` causes it at the bench; `within`: seconds until it is named."""

    cause: Cause
    make: Callable[[Bench], None]
    within: float = 20
    first: bool = False
    """It was there before the first handshake."""


def cut(bench: Bench, outside: Outside) -> None:
    bench.edge.up, bench.outside = False, outside


def disown(bench: Bench, trouble: Diagnosis | None) -> None:
    cut(bench, REACHED)
    bench.trouble = trouble


def filter_reserved(bench: Bench) -> None:
    cut(bench, REACHED)
    bench.edge.handshakes = True
    bench.monitor.config = replace(bench.monitor.config, guise=Guise(b"\1\2\3"))


def distrust(bench: Bench, code: int, message: str) -> None:
    bench.edge.certificate = refusal(code, message)


ILLNESSES = {
    "uplink gone": Illness(Cause.UPLINK_GONE, lambda at: cut(at, Outside(uplink=False))),
    "UDP dropped": Illness(Cause.UDP_BLOCKED, lambda at: cut(at, NO_UDP)),
    "UDP rejected": Illness(Cause.UDP_BLOCKED, lambda at: cut(at, replace(REACHED, rejected="rejected"))),
    "WireGuard dropped": Illness(Cause.WIREGUARD_BLOCKED, lambda at: disown(at, None), 160),
    "deleted": Illness(Cause.ACCOUNT_GONE, lambda at: disown(at, GONE), 160),
    "another key": Illness(Cause.KEY_REFUSED, lambda at: disown(at, REKEYED), 160),
    "reserved bytes filtered": Illness(Cause.RESERVED_FILTERED, filter_reserved, first=True),
    "clock days off": Illness(
        Cause.CLOCK_WRONG, lambda at: cut(at, Outside(udp=True, offset=-2e5)), first=True
    ),
    "clock years off": Illness(Cause.CLOCK_WRONG, lambda at: distrust(at, 9, "not yet valid"), first=True),
    "TLS inspected": Illness(Cause.CERTIFICATE, lambda at: distrust(at, 18, "self-signed"), first=True),
}


@pytest.mark.parametrize("name", ILLNESSES)
async def test_an_illness_is_named_once_with_its_own_remedy(
    bench: Bench, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    illness = ILLNESSES[name]
    if illness.first:
        illness.make(bench)
    async with watching(bench, 2):
        if not illness.first:
            illness.make(bench)
        begun = bench.clock.now
        await bench.until(illness.within + 15)  # an idle tunnel is noticed at the next interval
        assert {cause for _, cause in bench.events.causes} == {illness.cause}, "never another illness first"
        assert bench.events.causes[0][0] - begun <= illness.within + 15
        lines = [line for line in caplog.messages if illness.cause.value in line]
        assert lines
        assert not [
            line for line in caplog.messages for one in Cause if one.value in line and line not in lines
        ]


class Clocked(logging.Handler):
    """Notes when, in virtual time, UDP was called blocked."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench, self.times = bench, list[float]()

    def emit(self, record: logging.LogRecord) -> None:
        if Cause.UDP_BLOCKED.value in record.getMessage():
            self.times.append(self.bench.clock.now)


async def test_a_cause_is_repeated_with_growing_pauses_while_it_lasts(bench: Bench) -> None:
    clocked = Clocked(bench)
    logging.getLogger("ss-warp").addHandler(clocked)
    async with watching(bench, 2):
        cut(bench, NO_UDP)
        await bench.until(2200)
    logging.getLogger("ss-warp").removeHandler(clocked)
    said = clocked.times
    pauses = [later - earlier for earlier, later in pairwise(said)]
    assert 4 <= len(said) <= 6
    assert all(later > 3 * earlier for earlier, later in pairwise(pauses))


async def test_a_cause_goes_when_the_tunnel_answers(bench: Bench) -> None:
    async with watching(bench, 2):
        cut(bench, NO_UDP)
        await bench.until(30)
        assert bench.monitor.cause
        bench.edge.up = True
        await bench.until(10)
        assert bench.monitor.cause is None


async def test_an_account_that_was_in_order_before_the_outage_proves_nothing(bench: Bench) -> None:
    bench.rechecks.note(AccountCheck(bench.clock.wall()))
    async with watching(bench, 2):
        disown(bench, GONE)
        await bench.until(170)
        assert {cause for _, cause in bench.events.causes} == {Cause.ACCOUNT_GONE}


async def test_a_device_registered_a_moment_ago_vouches_for_itself(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """On a first start nothing has to be asked: WireGuard is blocked, within seconds."""
    caplog.set_level(logging.WARNING)
    bench.rechecks.note(AccountCheck(bench.clock.wall()))
    cut(bench, REACHED)
    async with watching(bench, 20):
        assert {cause for _, cause in bench.events.causes} == {Cause.WIREGUARD_BLOCKED}
        assert bench.doubts == []
