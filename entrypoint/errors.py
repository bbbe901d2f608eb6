"""The errors that a person sees; the class says who can fix it, and sets the exit code.

Error:
├── UsageError         64  the command line
├── UnhealableError    69  Cloudflare or the network; only with EXIT_ON_FATAL
├── DefectError        70  the maintainers: a bug
├── UndoError          71  ss-warp could not undo one of its changes
├── StateError         74  the state volume is unreadable, unwritable or corrupt
├── BusyError          75  try again later: state locked by another, disk full
├── PlatformError      77  the machine or container: capability, device, kernel
└── SettingsError      78  the settings
"""

import errno


class Error(Exception):
    """A sentence that says what is wrong and, where one helps, a hint that says what to do."""

    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(Error):
    """The command line is wrong."""

    exit_code = 64


class UnhealableError(Error):
    """The API refused for good; or, with EXIT_ON_FATAL=on, every repair failed."""

    exit_code = 69


class DefectError(Error):
    """A state that the code excludes."""

    exit_code = 70


class UndoError(Error):
    """An undo failed or ran out of time, so a change is left behind."""

    exit_code = 71


class StateError(Error):
    """The state volume cannot be read or written, or holds a file that is not ours."""

    exit_code = 74


class BusyError(Error):
    """Temporary: the state is in use by another process, or the disk is full."""

    exit_code = 75


class PlatformError(Error):
    """A capability, device or kernel feature is missing."""

    exit_code = 77


HINTS = {
    ("network", errno.EPERM): "add cap_add: [NET_ADMIN]",
    ("network", errno.EACCES): "add sysctls: [net.ipv6.conf.all.disable_ipv6=0]",
    ("tun", errno.ENOENT): "add devices: [/dev/net/tun]",
    ("tun", errno.ENODEV): "on the host: modprobe tun",
    ("tun", errno.EPERM): "add devices: [/dev/net/tun]",
    ("tun", errno.EACCES): "on a host with SELinux: setsebool -P container_use_devices on",
    ("run", errno.EACCES): "add tmpfs: [/run]",
    ("run", errno.EROFS): "add tmpfs: [/run]",
    ("run", errno.ENOTDIR): "add tmpfs: [/run]",
    ("nft", 0): "add cap_add: [NET_ADMIN]; the kernel needs nf_tables",
}
"""What helps, by what was tried (`network` is netlink, `tun` /dev/net/tun) and errno; nft has no errno."""


def explain(what: str, error: OSError, about: str = "network") -> PlatformError:
    """Return the kernel's refusal as a sentence that begins with `what`, with a hint."""
    # One place for the kernel's refusals: the same errno gets the same advice everywhere.
    return PlatformError(f"{what}: {error.strerror or error}", HINTS.get((about, error.errno or 0), ""))


class SettingsError(Error):
    """One or more settings are wrong; `problems` lists all of them."""

    exit_code = 78

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
