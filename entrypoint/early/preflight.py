"""Check capabilities and kernel before changing anything. Light to import."""

import os
import signal

from entrypoint.errors import PlatformError, explain

CAPABILITIES = {"KILL": 5, "SETGID": 6, "SETUID": 7, "NET_ADMIN": 12}
"""Bit numbers (linux/capability.h) needed to configure the network and run ssserver as its own user."""

OLDEST_KERNEL = (5, 7)
"""SO_BINDTODEVICE works without a capability since 5.7, and ssserver has none."""


def read_privileges(proc: "str | os.PathLike[str]" = "/proc") -> tuple[int, str]:
    """Return our effective capabilities as a bit mask, and the kernel release."""
    with open(os.path.join(proc, "self/status")) as file:  # noqa: PTH118, PTH123 - pathlib is not light
        status = dict(line.split(":", 1) for line in file)
    return int(status["CapEff"], 16), os.uname().release


def check_privileges(capabilities: int, release: str) -> None:
    """Raise PlatformError with everything that is missing and the remedy."""
    # Without SETUID and SETGID ssserver would run as root; without KILL even root cannot end it.
    # Root without KILL cannot end a child of another user; without SETUID and SETGID there is none.
    missing = [name for name, bit in CAPABILITIES.items() if not capabilities >> bit & 1]
    if missing:
        raise PlatformError(
            f"missing {'capability' if len(missing) == 1 else 'capabilities'} {', '.join(sorted(missing))}",
            f"add cap_add: [{', '.join(sorted(missing))}]",
        )
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if version < OLDEST_KERNEL:
        raise PlatformError(
            f"Linux {release} is too old to bind ssserver to the tunnel", "use Linux 5.7 or newer"
        )


TUN = "/dev/net/tun"


def require_tun(node: "str | os.PathLike[str]" = TUN) -> None:
    """Raise PlatformError when the TUN node is missing or forbidden."""
    try:
        os.close(os.open(node, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise explain(f"cannot open {node}", error, "tun") from error


STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""Signals that stop ss-warp in order: even a closed terminal must not leave rules and routes behind."""

IGNORED = (signal.SIGUSR1, signal.SIGUSR2)
"""Ignored, because by default they kill a process."""
