import pytest

from entrypoint.errors import DefectError
from entrypoint.status.states import OUTAGE, TRANSITIONS, USABLE, Event, State, mermaid, step


def reachable(start: State) -> set[State]:
    found, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        further = {row.to for (state, _), row in TRANSITIONS.items() if state is here} - found
        found |= further
        waiting += further
    return found


def test_every_state_can_be_reached() -> None:
    assert reachable(State.STARTING) == set(State)


@pytest.mark.parametrize("state", State)
def test_every_state_can_stop_and_nothing_follows(state: State) -> None:
    assert step(state, Event.STOP).to is State.STOPPING
    assert reachable(State.STOPPING) == {State.STOPPING}


@pytest.mark.parametrize("state", sorted(set(State) - {State.STOPPING}))
def test_from_everywhere_the_chain_can_be_connected(state: State) -> None:
    assert State.CONNECTED in reachable(state)


@pytest.mark.parametrize("event", Event)
def test_every_event_is_used(event: Event) -> None:
    assert event in {used for _, used in TRANSITIONS}


def test_only_an_answer_connects() -> None:
    ways = {event for (state, event), row in TRANSITIONS.items() if row.to is State.CONNECTED is not state}
    assert ways == {Event.ANSWERED}


def test_every_row_has_a_sentence_and_a_reason() -> None:
    verdicts = {State.DEGRADED, State.FOREIGN, State.HEALING, State.BLOCKED}
    assert all(row.why and (row.sentence or row.to in verdicts) for row in TRANSITIONS.values())


def test_what_the_table_does_not_know_is_a_defect() -> None:
    with pytest.raises(DefectError, match="no transition from stopping on answered"):
        step(State.STOPPING, Event.ANSWERED)


def test_the_diagram_has_every_transition() -> None:
    lines = mermaid().splitlines()
    assert lines[0] == "stateDiagram-v2"
    box = {state: "tunnel" for state in (*USABLE, *OUTAGE)}
    for (state, event), row in TRANSITIONS.items():
        one, other = box.get(state, str(state)), box.get(row.to, str(row.to))
        if state is State.STOPPING or (one == other == "tunnel"):
            continue
        arrows = [line.strip().split(": ", 1) for line in lines if "-->" in line and ": " in line]
        events = dict(arrows)[f"{one} --> {other}"].split(", ")
        assert event.value in events
    for state in box:
        assert any(line.strip().startswith(f"{state}: ") for line in lines)
