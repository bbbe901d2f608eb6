"""States of a run, events, and the one table that says which event leads where.

`mermaid()` draws the table for the documentation.
"""

from enum import StrEnum
from typing import NamedTuple

from entrypoint.errors import DefectError


class State(StrEnum):
    """Where the run is; `connected` to `blocked` are the verdicts on the tunnel."""

    STARTING = "starting"
    REGISTERING = "registering"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DEGRADED = "degraded"
    FOREIGN = "foreign"
    HEALING = "healing"
    BLOCKED = "blocked"
    STOPPING = "stopping"


USABLE = (State.CONNECTED, State.DEGRADED, State.FOREIGN)
"""The tunnel carries something."""

OUTAGE = (State.HEALING, State.BLOCKED)
"""The tunnel carries nothing, and repairs go on."""


class Event(StrEnum):
    """What happened."""

    ACCOUNT_MISSING = "account missing"
    API_SILENT = "API silent"
    ACCOUNT_READY = "account ready"
    ANSWERED = "answered"
    DEGRADED = "degraded"
    FOREIGN = "not through WARP"
    UNANSWERED = "unanswered"
    BLOCKED = "blocked"
    REPAIRED = "repaired"
    ACCOUNT_GONE = "account gone"
    STOP = "stop"
    FAIL = "fail"


class Step(NamedTuple):
    """Where an event leads, the sentence for log and status, and why the row exists."""

    to: State
    sentence: str
    why: str


_STOP = Step(State.STOPPING, "stopping", "SIGTERM or SIGINT may come at any moment")
_FAIL = Step(State.STOPPING, "giving up", "an unrecoverable error ends any phase")
_VERDICTS = {
    Event.ANSWERED: Step(State.CONNECTED, "connected", "health is a request answered through the tunnel"),
    Event.DEGRADED: Step(State.DEGRADED, "", "DNS alone is no proof that clients are served"),
    Event.FOREIGN: Step(State.FOREIGN, "", "the page may have changed: reported, never repaired"),
    Event.UNANSWERED: Step(State.HEALING, "", "handshakes and counters look alive to a silent edge"),
    Event.BLOCKED: Step(State.BLOCKED, "", "the cause lies outside: a person has to remove it"),
}
"""Any verdict may follow any other; the reason comes with it."""

TRANSITIONS: dict[tuple[State, Event], Step] = {
    (State.STARTING, Event.ACCOUNT_MISSING): Step(
        State.REGISTERING, "registering an account", "first run, or an empty state volume"
    ),
    (State.STARTING, Event.ACCOUNT_READY): Step(
        State.CONNECTING, "loaded account", "a second start registers nothing"
    ),
    (State.REGISTERING, Event.API_SILENT): Step(
        State.REGISTERING, "registration failed", "a start without an API waits, and says until when"
    ),
    (State.REGISTERING, Event.ACCOUNT_READY): Step(
        State.CONNECTING, "registered account", "the account is saved before it is used"
    ),
    **{
        (state, event): step
        for state in (State.CONNECTING, *USABLE, *OUTAGE)
        for event, step in _VERDICTS.items()
    },
    **{
        (state, Event.REPAIRED): Step(state, "repairing", "each repair is shown, and waits for an answer")
        for state in (*USABLE, *OUTAGE)
    },
    **{
        (state, Event.ACCOUNT_GONE): Step(
            State.REGISTERING, "the account no longer exists, registering a new one", "once a day at most"
        )
        for state in OUTAGE
    },
    **{
        (state, Event.ACCOUNT_READY): Step(
            State.CONNECTING, "the account changed", "queried in an outage, the API showed another edge"
        )
        for state in (*USABLE, *OUTAGE)
    },
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
    """Return the table as a Mermaid state diagram; the verdicts share one box."""
    box = {state: "tunnel" for state in (*USABLE, *OUTAGE)}
    arrows: dict[tuple[str, str], dict[Event, None]] = {}
    for (state, event), (to, _, _) in TRANSITIONS.items():
        one, other = box.get(state, str(state)), box.get(to, str(to))
        if state is not State.STOPPING and not one == other == "tunnel":
            arrows.setdefault((one, other), {})[event] = None
    verdicts = [f"        {step.to}: {step.to} ({event})" for event, step in _VERDICTS.items()]
    lines = [f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in arrows.items()]
    head = ["stateDiagram-v2", "    [*] --> starting", "    state tunnel {", *verdicts, "    }"]
    return "\n".join([*head, *lines, "    stopping --> [*]"])
