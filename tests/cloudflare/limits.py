"""What the API counts: calls by address, devices by licence."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.cloudflare.devices import Device

DEVICES_PER_LICENCE = 5


@dataclass(slots=True)
class Budget:
    """At most `calls` in `seconds` from one address; None: no limit. Refused calls count too."""

    calls: int | None = None
    seconds: float = 60.0
    retry_after: str = ""
    clock: Callable[[], float] = time.monotonic
    _seen: defaultdict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))

    def spend(self, source: str) -> bool:
        """Count a call; say whether it may be answered."""
        if self.calls is None:
            return True
        now, seen = self.clock(), self._seen[source]
        while seen and now - seen[0] >= self.seconds:
            seen.popleft()
        seen.append(now)
        return len(seen) <= self.calls


@dataclass(slots=True)
class Licences:
    """The licences that were sold: key to account type, `limited` or `unlimited`."""

    sold: dict[str, str] = field(default_factory=dict)

    def refusal(self, key: object, device: Device, devices: Iterable[Device]) -> dict[str, object] | None:
        """Return why the device may not have it, as an entry of `errors`."""
        if key == device.license:
            return None
        if not isinstance(key, str) or key not in self.sold:
            return {"code": 1000, "message": "Invalid license"}
        users = [one for one in devices if one.active and one.license == key and one.id != device.id]
        if len(users) >= DEVICES_PER_LICENCE:
            return {"code": 1056, "message": "Too many connected devices."}
        return None
