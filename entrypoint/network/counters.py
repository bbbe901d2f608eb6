"""A device's packet counters, as the kernel prints them."""

from dataclasses import dataclass
from pathlib import Path

COUNTERS = Path("/proc/thread-self/net/dev")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets inside the tunnel, so neither handshakes nor keepalives: a silent edge cannot feign them."""

    rx: int
    tx: int


def read_traffic(device: str, counters: Path = COUNTERS) -> Traffic | None:
    """Read the device's packet counters; None when there is no such device. A few microseconds."""
    for line in counters.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == device:
            numbers = rest.split()
            return Traffic(rx=int(numbers[1]), tx=int(numbers[9]))
    return None
