"""The errors a person sees; the class tells who can fix it, and with which exit code the program ends.

Error:
├── UsageError         64  the command line
├── UnhealableError    69  Cloudflare or the network; only with EXIT_ON_FATAL
├── DefectError        70  us: a bug
├── UndoError          71  something of ours could not be taken back
├── StateError         74  the state volume is unreadable, unwritable or corrupt
├── BusyError          75  try again later: state locked by another, disk full
├── PlatformError      77  the machine or container: capability, device, kernel
└── SettingsError      78  the settings
"""


class Error(Exception):
    """A sentence about what is wrong, and where one helps, a hint: what to do."""

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
    """Every rung of the ladder was tried; raised only with EXIT_ON_FATAL=on."""

    exit_code = 69


class DefectError(Error):
    """A state that our own code excludes."""

    exit_code = 70


class UndoError(Error):
    """Some undo failed or ran out of time: something of ours is left behind."""

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


class SettingsError(Error):
    """One or more settings are wrong; `problems` lists all of them."""

    exit_code = 78

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
