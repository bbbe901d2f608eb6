"""What the container must have been given, checked before anything is touched; light to import."""

import os
import signal

from entrypoint.errors import PlatformError

CAPABILITIES = {"KILL": 5, "SETGID": 6, "SETUID": 7, "NET_ADMIN": 12}
"""Bit numbers (linux/capability.h) of what we need: end and start ssserver under its own user, networking."""

OLDEST_KERNEL = (5, 7)
"""Since 5.7 SO_BINDTODEVICE works without a capability, and ssserver has none."""


def read_privileges(proc: "str | os.PathLike[str]" = "/proc") -> tuple[int, str]:
    """Return what the kernel says of us: effective capabilities as a bit mask, and its release."""
    with open(os.path.join(proc, "self/status")) as file:  # noqa: PTH118, PTH123 - pathlib is not light
        status = dict(line.split(":", 1) for line in file)
    return int(status["CapEff"], 16), os.uname().release


def check_privileges(capabilities: int, release: str) -> None:
    """Raise PlatformError naming everything that is missing, with the remedy."""
    missing = [name for name, bit in CAPABILITIES.items() if not capabilities >> bit & 1]
    if missing:
        raise PlatformError(
            f"missing {'capability' if len(missing) == 1 else 'capabilities'} {', '.join(sorted(missing))}",
            f"add cap_add: [{', '.join(sorted(missing))}]",
        )
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if version < OLDEST_KERNEL:
        raise PlatformError(
            f"Linux {release} is too old: ssserver could not be bound to the tunnel",
            "Linux 5.7 or newer is needed",
        )


STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""Each asks for a stop in order: a terminal that is closed must not leave rules and routes behind."""

IGNORED = (signal.SIGUSR1, signal.SIGUSR2)
"""Their default is to end a process on the spot."""
