"""States of the chain, events, and the one table that says which event leads where.

The diagram in the README is `mermaid()` of this table.
"""

from enum import StrEnum
from typing import NamedTuple

from entrypoint.errors import DefectError


class State(StrEnum):
    """Where the chain is. Only `connected` is healthy: a request came back through the tunnel."""

    STARTING = "starting"
    REGISTERING = "registering"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    HEALING = "healing"
    STOPPING = "stopping"


class Event(StrEnum):
    """What happened."""

    ACCOUNT_MISSING = "account missing"
    API_SILENT = "API silent"
    ACCOUNT_READY = "account ready"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    REPAIRED = "repaired"
    ACCOUNT_GONE = "account gone"
    STOP = "stop"
    FAIL = "fail"


class Step(NamedTuple):
    """Where an event leads, the sentence for the log and the status, and why the row exists."""

    to: State
    sentence: str
    why: str


_STOP = Step(State.STOPPING, "stopping", "SIGTERM or SIGINT may come at any moment")
_FAIL = Step(State.STOPPING, "giving up", "an error that no repair answers ends every phase")

TRANSITIONS: dict[tuple[State, Event], Step] = {
    (State.STARTING, Event.ACCOUNT_MISSING): Step(
        State.REGISTERING, "no account yet: registering one", "first run, or an empty state volume"
    ),
    (State.STARTING, Event.ACCOUNT_READY): Step(
        State.CONNECTING, "account loaded: connecting", "a second start registers nothing"
    ),
    (State.REGISTERING, Event.API_SILENT): Step(
        State.REGISTERING,
        "the API gave no account",
        "a start without an API waits and says when it tries next",
    ),
    (State.REGISTERING, Event.ACCOUNT_READY): Step(
        State.CONNECTING, "account registered: connecting", "the account is saved before it is used"
    ),
    (State.CONNECTING, Event.UNANSWERED): Step(
        State.HEALING, "no answer through the tunnel yet", "a tunnel that never worked climbs the same ladder"
    ),
    (State.CONNECTING, Event.ANSWERED): Step(
        State.CONNECTED, "connected", "health is a request answered through the tunnel"
    ),
    (State.CONNECTED, Event.UNANSWERED): Step(
        State.HEALING, "the tunnel is silent: healing", "handshakes and counters look alive to a silent edge"
    ),
    (State.CONNECTED, Event.REPAIRED): Step(
        State.CONNECTED, "peer replaced", "a changed uplink is repaired before anything is lost"
    ),
    (State.HEALING, Event.REPAIRED): Step(
        State.HEALING, "repair tried", "each rung of the ladder is told, and waits for an answer"
    ),
    (State.HEALING, Event.ANSWERED): Step(State.CONNECTED, "connected again", "an answer ends every repair"),
    (State.HEALING, Event.ACCOUNT_GONE): Step(
        State.REGISTERING,
        "the API knows this account no more: registering",
        "only when it says so of the device and answers else, once a day",
    ),
    (State.HEALING, Event.ACCOUNT_READY): Step(
        State.CONNECTING,
        "the account has changed: connecting",
        "asked in an outage, the API showed another edge or other addresses",
    ),
    **{(state, Event.STOP): _STOP for state in State},
    **{(state, Event.FAIL): _FAIL for state in State if state is not State.STOPPING},
}


def step(state: State, event: Event) -> Step:
    """Return where `event` leads from `state`; raise DefectError when the table has no such row."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise DefectError(f"no transition from {state} on {event}") from None


def mermaid() -> str:
    """Return the table as a Mermaid state diagram; events with one source and one end share an arrow."""
    arrows: dict[tuple[State, State], list[Event]] = {}
    for (state, event), (to, _, _) in TRANSITIONS.items():
        if state is not State.STOPPING:
            arrows.setdefault((state, to), []).append(event)
    lines = [f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in arrows.items()]
    return "\n".join(["stateDiagram-v2", "    [*] --> starting", *lines, "    stopping --> [*]"])
