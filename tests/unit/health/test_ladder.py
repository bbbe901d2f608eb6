"""The ladder: which rung comes next."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.health.ladder import (
    ASK_API,
    DISGUISE,
    INTERFACE_MISSING,
    LADDER,
    ROUNDS,
    SWITCH_ENGINE,
    UPLINK_CHANGED,
    Climb,
    Outage,
    Rung,
    next_rung,
)

R, N, P = Rung.REPLACE_PEER, Rung.NEXT_ENDPOINT, Rung.NEW_PORT
C, A, S, D = Rung.RECREATE, Rung.ASK_API, Rung.SWITCH_ENGINE, Rung.DISGUISE


ROWS = (*LADDER, ASK_API, SWITCH_ENGINE, DISGUISE, INTERFACE_MISSING, UPLINK_CHANGED)


def climbed(*steps: tuple[Rung, float]) -> tuple[Climb, ...]:
    return tuple(Climb(rung, at) for rung, at in steps)


def outage(seconds: float, pace: float, **facts: object) -> list[tuple[Rung, float]]:
    """What is climbed when nothing helps, with a look every `pace` seconds."""
    history: tuple[Climb, ...] = ()
    now = 100.0
    while now < 100 + seconds:
        rung = next_rung(history, now, Outage(since=100.0, **facts))  # type: ignore[arg-type]
        if rung is not None:
            history = (*history, Climb(rung, now))
        now += pace
    return [(climb.rung, climb.at - 100) for climb in history]


def test_the_peer_is_replaced_first() -> None:
    assert next_rung((), 100.0, Outage(since=100.0, endpoints=8)) is R


def test_then_other_endpoints_are_tried_and_the_interface_last() -> None:
    assert [rung for rung, _ in outage(31, 3, endpoints=8)][:4] == [R, N, N, N]
    rungs = outage(60, 3, endpoints=8)
    recreated = [at for rung, at in rungs if rung is C]
    assert len(recreated) == 1
    assert recreated[0] >= 30


def test_another_endpoint_is_tried_within_thirty_seconds() -> None:
    assert min(at for rung, at in outage(30, 4, endpoints=2) if rung is N) <= 10


def test_every_endpoint_has_its_turn() -> None:
    assert [rung for rung, _ in outage(120, 3, endpoints=8)].count(N) >= 8


def test_with_one_endpoint_there_is_no_next_one() -> None:
    rungs = [rung for rung, _ in outage(200, 3)]
    assert N not in rungs
    assert {R, P, C, A} == set(rungs)


@pytest.mark.parametrize("endpoints", [1, 2, 8])
def test_n_07_the_api_is_asked_after_three_rounds_and_then_left_in_peace(endpoints: int) -> None:
    rungs = [rung for rung, _ in outage(1200, 3, endpoints=endpoints, jitter=0.5)]
    round_ = 3 + min(3, endpoints - 1)
    assert rungs.index(A) >= ROUNDS * round_
    assert rungs.count(A) == 2, "once in ten minutes"
    assert rungs.count(A) <= len(rungs) / round_ / ROUNDS


def test_the_source_port_changes_before_thirty_seconds() -> None:
    for endpoints in (1, 2, 8):
        assert min(at for rung, at in outage(30, 2, endpoints=endpoints) if rung is P) < 30


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_the_api_is_asked_at_a_time_of_its_own(jitter: float) -> None:
    asked = [at for rung, at in outage(1500, 3, endpoints=8, jitter=jitter) if rung is A]
    assert asked[0] >= 90 + 60 * jitter
    assert asked[1] - asked[0] == pytest.approx(600 * (0.8 + 0.4 * jitter), abs=6)


def test_the_other_engine_is_tried_once_a_day_after_a_minute() -> None:
    assert S not in [rung for rung, _ in outage(3600, 3, endpoints=8)]
    switched = [at for rung, at in outage(3600, 3, endpoints=8, other_engine=True) if rung is S]
    assert len(switched) == 1
    assert 60 <= switched[0] < 66


def test_a_disguise_is_tried_every_twenty_seconds_between_the_other_repairs() -> None:
    blocked = outage(100, 3, endpoints=8, disguise=True)
    at = [at for rung, at in blocked if rung is D]
    assert at[0] >= 10
    assert len(at) == 5
    assert all(20 <= later - earlier <= 23 for earlier, later in pairwise(at))
    others = [rung for rung, _ in blocked if rung is not D]
    plain = [rung for rung, _ in outage(100, 3, endpoints=8)]
    assert others[:10] == plain[:10], "in their order"
    assert D not in plain


def test_a_short_outage_never_bothers_the_api() -> None:
    assert A not in [rung for rung, _ in outage(30, 3, endpoints=8)]


def test_a_short_outage_neither_wanders_nor_recreates() -> None:
    assert [rung for rung, _ in outage(2, 0.5, endpoints=8)] == [R]


def test_a_missing_interface_is_recreated_at_once() -> None:
    assert next_rung((), 100.0, Outage(since=100.0, device_missing=True, endpoints=8)) is C
    assert next_rung(climbed((R, 100)), 101.0, Outage(since=100.0, device_missing=True)) is C


def test_an_interface_that_others_keep_deleting_is_recreated_at_a_bounded_rate() -> None:
    rungs = outage(100, 0.1, device_missing=True)
    assert [rung for rung, at in rungs if at < 2] == [C] * INTERFACE_MISSING.burst
    assert len(rungs) <= 2 * INTERFACE_MISSING.burst


def test_a_new_uplink_address_replaces_the_peer_even_right_after_another_repair() -> None:
    assert next_rung(climbed((R, 99.9)), 100.0, Outage(since=100.0, uplink_changed=True)) is R


def test_a_flapping_uplink_address_is_followed_at_a_bounded_rate() -> None:
    rungs = outage(49, 0.1, uplink_changed=True)
    assert sum(rung is R for rung, _ in rungs) <= 2 * UPLINK_CHANGED.burst


def test_a_flapping_tunnel_is_repaired_once_in_five_seconds() -> None:
    history: tuple[Climb, ...] = ()
    for second in range(0, 60, 2):
        for part in (0.0, 0.4, 0.8):
            rung = next_rung(history, second + part, Outage(since=float(second), endpoints=8))
            if rung is not None:
                history = (*history, Climb(rung, second + part))
    assert 10 <= len(history) <= 12


def test_every_row_says_why() -> None:
    assert all(row.reason for row in ROWS)
    assert {row.rung for row in ROWS} == set(Rung)


@given(
    st.lists(st.tuples(st.sampled_from(Rung), st.floats(0, 1000)), max_size=32),
    st.floats(0, 1000),
    st.floats(0, 600),
    st.integers(1, 12),
    st.booleans(),
    st.booleans(),
)
def test_no_row_is_climbed_more_often_than_it_may(
    steps: list[tuple[Rung, float]], since: float, age: float, endpoints: int, missing: bool, moved: bool
) -> None:
    history = climbed(*steps)
    now = since + age
    rung = next_rung(history, now, Outage(since, missing, moved, endpoints))
    if rung is None:
        return
    rows = [row for row in ROWS if row.rung is rung]
    loosest = max(rows, key=lambda row: row.burst)
    recent = sum(climb.rung is rung and now - climb.at < loosest.seconds for climb in history)
    assert recent < loosest.burst
    assert rung is not N or endpoints > 1
    assert rung is C or not missing


@pytest.mark.parametrize("rung", Rung)
def test_every_rung_reads_as_a_phrase(rung: Rung) -> None:
    assert rung.value.split()[0].endswith("ing")
