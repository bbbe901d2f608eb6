"""The product under test: started in a place of the lab, steered by signals, read by its log and status."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from tests.lab.topology import IMPLEMENTATION, Lab, Place
from tests.pace import longer

STARTED_WITHIN = 15.0
STOPPED_WITHIN = 5.0
STEP = longer(0.005)


def eventually[T](condition: Callable[[], T], what: str, within: float = 5.0) -> T:
    """Return the condition's first true value. Raises AssertionError after `within` seconds (pace.py)."""
    within = longer(within)
    deadline = time.monotonic() + within
    ticker = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        ticker.wait(STEP)


class Product:
    """`python -m entrypoint` in a namespace, with a /run of its own, as in a container.

    With a `pace` its clock runs so many times faster (fast.py).
    """

    running: ClassVar[list["Product"]] = []
    """Those inside their blocks, for the report of a test that fails."""

    def __init__(
        self,
        lab: Lab,
        state: Path,
        place: Place = "H",
        environment: Mapping[str, str] | None = None,
        *,
        pace: float = 1,
    ) -> None:
        self._lab, self._place = lab, place
        self.state = state
        self.prelude = ""
        """Shell that runs in its mount namespace before it."""
        entry = ("entrypoint", "run") if pace == 1 else ("tests.lab.fast", str(pace))
        self._program = (sys.executable, "-m", *entry)
        self.tracer: tuple[str, ...] = ()
        """What runs it, and becomes it."""
        self.lines: list[str] = []
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "NETWORK": "own",
            "WIREGUARD_IMPLEMENTATION": IMPLEMENTATION,
            "WARP_STATE_DIR": str(state),
            "WARP_API_CA_FILE": str(lab.cloudflare.ca_file),
            "HEALTH_CA_FILE": str(lab.cloudflare.ca_file),
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes]
        self.started_at = 0.0

    def start(self) -> Self:
        """Start it; returns at once."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lines = []
        self.started_at = time.monotonic()
        names = [f"{name}={value}" for name, value in self._environment.items()]
        self.process = self._lab.popen(
            self._place,
            ["env", "-i", *names, *self.tracer, *self._program],
            private_run=True,
            prelude=self.prelude,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        return self

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip("\n"))
        process.stdout.close()

    @property
    def pid(self) -> int:
        """The supervisor's process id: every wrapper has become it by exec."""
        return self.process.pid

    @property
    def log(self) -> str:
        """All it printed."""
        return "\n".join(self.lines)

    def said(self, text: str, within: float = STARTED_WITHIN) -> str:
        """Wait for a line that contains `text`; return it."""

        def line() -> str:
            for one in self.lines:
                if text in one:
                    return one
            assert self.process.poll() is None, f"it ended ({self.process.returncode}):\n{self.log}"
            return ""

        try:
            return eventually(line, f"a line with {text!r}", within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def status(self) -> dict[str, Any]:
        """Return its status file, empty before there is one."""
        try:
            return dict(json.loads(Path(f"/proc/{self.pid}/root/run/ss-warp/status.json").read_text()))
        except FileNotFoundError:
            return {}

    def reached(self, state: str, within: float = STARTED_WITHIN) -> dict[str, Any]:
        """Wait until the status says `state`; return it."""

        def there() -> dict[str, Any] | None:
            assert self.process.poll() is None, f"it ended ({self.process.returncode}):\n{self.log}"
            status = self.status()
            return status if status.get("state") == state else None

        try:
            found = eventually(there, f"state {state}", within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None
        assert found is not None
        return found

    def serving(self, within: float = STARTED_WITHIN) -> Self:
        """Wait until it is connected and its Shadowsocks server listens."""

        def there() -> bool:
            assert self.process.poll() is None, f"it ended ({self.process.returncode}):\n{self.log}"
            status = self.status()
            return status.get("state") == "connected" and bool(status["shadowsocks"]["listening"])

        try:
            eventually(there, "connected and listening", within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None
        return self

    def children(self, name: str) -> list[int]:
        """Return the pids of its children with this program name."""
        found = []
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() == name[:15]:
                    found.append(int(pid))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; return the exit code (negative: the signal)."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.ended()

    def ended(self, within: float = STOPPED_WITHIN) -> int:
        """Wait for its end; return the exit code."""
        within = longer(within)
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end within {within:g} s:\n{self.log}") from None
        self._reader.join(5)
        return code

    def account(self) -> dict[str, Any]:
        """Return what account.json keeps, empty before there is one."""
        try:
            return dict(json.loads((self.state / "account.json").read_text()))
        except FileNotFoundError:
            return {}

    def secrets(self) -> dict[str, Any]:
        """Return what shadowsocks.json keeps."""
        return dict(json.loads((self.state / "shadowsocks.json").read_text()))

    def __enter__(self) -> Self:
        """Start it."""
        self.running.append(self)
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, whatever state it is in."""
        self.running.remove(self)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(longer(STOPPED_WITHIN))
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)


def ticks(pid: int) -> int:
    """Return utime and stime of this process alone (proc(5): fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def health(lab: Lab) -> tuple[int, str]:
    """Return status and text of /healthz; 0 without a listener."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with lab.inside("H"):
        try:
            with opener.open("http://127.0.0.1:9999/healthz", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except urllib.error.URLError:
            return 0, ""
