"""The numbers and names that we take in the kernel: what carries them is ours, and nothing else is."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from entrypoint.errors import StateError
from entrypoint.network.plan import (
    MARK,
    PROTOCOL_KERNEL,
    Item,
    Link,
    LinkAddress,
    LinkUp,
    Mark,
    Route,
    Rule,
    Snapshot,
)
from entrypoint.network.policies import SSSERVER

TUNNEL_PRIORITY = 32764
"""Just before the kernel's own rules: whatever else is decided comes first."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Rule priorities, table, mark, devices. `priority` is the `from` row's (ROUTE_RULE_PRIORITY)."""

    priority: int = 18
    table: int = 51820
    mark: Mark = MARK
    device: str = "wg0"
    null_device: str = "ssw-null"

    @property
    def priorities(self) -> tuple[int, ...]:
        """All priorities, in the order in which the kernel asks."""
        return (*range(self.priority - 2, self.priority + 3), TUNNEL_PRIORITY)

    @property
    def links(self) -> frozenset[str]:
        """The names of our devices."""
        return frozenset({self.device, self.null_device})


def encode(taken: Iterable[Numbers]) -> bytes:
    """Return network.json's content: every set of numbers that may be in use."""
    return json.dumps([asdict(numbers) for numbers in taken], indent=1).encode() + b"\n"


def decode(data: bytes | None) -> tuple[Numbers, ...]:
    """Read what `encode` wrote; no file is no numbers. Raises StateError."""
    try:
        entries = json.loads(data or b"[]")
        if not isinstance(entries, list):
            raise TypeError("not a list")
        return tuple(map(_read, entries))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateError(
            "network.json is corrupt: which rules and routes are ours is unknown",
            "remove what is left of ss-warp's rules, then the file",
        ) from error


def _read(entry: dict[str, object]) -> Numbers:
    whole = {name: entry[name] for name in ("priority", "table")}
    names = {name: entry[name] for name in ("device", "null_device")}
    mark = entry["mark"]
    if not isinstance(mark, dict):
        raise TypeError("mark")
    for value in (*whole.values(), mark["value"], mark["mask"]):
        if type(value) is not int or not 0 < value < 1 << 32:
            raise ValueError("not a number")
    for value in names.values():
        if not isinstance(value, str) or not 0 < len(value) < 16:
            raise ValueError("not a name")
    return Numbers(**whole, **names, mark=Mark(mark["value"], mark["mask"]))  # type: ignore[arg-type]


def present(snapshot: Snapshot, numbers: Numbers) -> Iterator[Item]:
    """Yield everything in the kernel that carries our numbers; of the device itself only that it is up.

    Routes and rules with a word that ours never have are somebody else's, also under our numbers.
    """
    for link in snapshot.links:
        if link.name in numbers.links and link.up:
            yield LinkUp(link.name, link.mtu)
        if link.name == numbers.null_device and link.kind == "tun":
            yield Link(link.name, "tun")
    for state in snapshot.addresses:
        # Link-local addresses come and go with the device, by the kernel's own hand.
        if state.device == numbers.device and not state.link_scope:
            yield LinkAddress(state.device, state.address)
    yield from (route for route in snapshot.routes if route.table == numbers.table and not route.more)
    yield from (
        rule
        for rule in snapshot.rules
        if (rule.priority in numbers.priorities and rule.protocol == PROTOCOL_KERNEL)
        and not (rule.more or rule.uid not in {None, SSSERVER})
    )


def stage(item: Item, numbers: Numbers) -> tuple[int, int]:
    """Return the item's place in the order of adding; removing is the exact reverse.

    The floor is there before anything is sent to the table, and answers keep their way before the
    tunnel rule takes the rest: the other way round an open session froze for 1.8 s.
    """
    match item:
        case Link():
            return 0, 0
        case LinkUp(name) if name != numbers.device:
            return 1, 0
        case Route(device=device) if device != numbers.device:
            return 2, 0
        case Rule(priority=priority) if priority != TUNNEL_PRIORITY:
            return 3, priority
        case LinkUp():
            return 4, 0
        case LinkAddress():
            return 5, 0
        case Route():
            return 6, 0
        case Rule():
            return 7, 0
