"""The tests' side: start an emulator in a namespace, steer it, ask it what it saw."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.cloudflare.authority import Certificate
from tests.cloudflare.config import API_URL, Address, Config
from tests.cloudflare.faults import Fault
from tests.cloudflare.seen import Call, DeviceSeen, Seen
from tests.pace import longer

READY_WITHIN = longer(10)


class Control:
    """The control interface: JSON over HTTP on a Unix socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer's JSON. Raises httpx.HTTPError, also for a refused request."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self._socket)), timeout=longer(10)) as client:
            answer = client.request(method, f"http://control{path}", json=body)
            answer.raise_for_status()
            return answer.json()


class Edge:
    """The WireGuard edge and its faults. Each setting stays until `heal`."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def restart(self, *, process: bool = False) -> None:
        """Lose every session: peers removed and added again, or all wireguard-go processes replaced."""
        self._control.ask("POST", "/edge/restart", {"process": process})

    def mute(self, *types: int) -> None:
        """Stop sending these WireGuard message types (1 initiation, 2 response, 3 cookie, 4 data)."""
        self._control.ask("PATCH", "/edge/faults", {"mute": types})

    def silent(self) -> None:
        """Answer handshakes, but send no data: looks alive to handshake age and counters."""
        self.mute(4)

    def dead(self) -> None:
        """Drop everything, both ways."""
        self._control.ask("PATCH", "/edge/faults", {"dead": True})

    def block(
        self,
        *,
        ports: Iterable[int] = (),
        addresses: Iterable[Address | str] = (),
        refused: Iterable[int] = (),
    ) -> None:
        """Drop what comes to these ports or endpoint addresses; answer `refused` ports with an ICMP error."""
        names = [str(one) for one in addresses]
        body = {"ports": list(ports), "addresses": names, "refused": list(refused)}
        self._control.ask("PATCH", "/edge/faults", body)

    def demand(self) -> None:
        """Drop what comes without the device's reserved bytes (its client_id)."""
        self._control.ask("PATCH", "/edge/faults", {"reserved": True})

    def middlebox(self, *, first: bool = False, stamped: bool = False) -> None:
        """Put a filter before it: of handshakes that come `first` on a flow, of what has reserved bytes."""
        self._control.ask("PATCH", "/edge/faults", {"first": first, "stamped": stamped})

    def heal(self) -> None:
        """Take all faults of the edge away."""
        self._control.ask("DELETE", "/edge/faults")

    def devices(self) -> list[DeviceSeen]:
        """Return every device in order of registration, deleted ones too."""
        return [DeviceSeen(**one) for one in self._control.ask("GET", "/edge/devices")]


class Origin:
    """The small internet behind the edge, reachable directly too."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def seen(self, protocol: str = "") -> list[Seen]:
        """Return what reached it, oldest first."""
        every = [Seen(**one) for one in self._control.ask("GET", "/origin/seen")]
        return [one for one in every if protocol in ("", one.protocol)]

    def certificate(self, which: Certificate) -> None:
        """Show another certificate from now on."""
        self._control.ask("PUT", "/origin/certificate", which)

    def clock(self, ahead: float) -> None:
        """Be so many seconds ahead of everybody else."""
        self._control.ask("PUT", "/origin/clock", ahead)

    def forget(self) -> None:
        """Empty that list."""
        self._control.ask("DELETE", "/origin/seen")


class Cloudflare:
    """A running emulator in the network namespace `netns` (of `ip netns`), whose way out is `uplink`.

    `state` keeps devices and the CA between two runs with the same directory; `settings` are Config's.
    """

    def __init__(self, netns: str, *, uplink: str, state: Path, **settings: Any) -> None:
        self.config = Config(state=state, uplink=uplink, **settings)
        self._netns = netns
        self._process: subprocess.Popen[bytes] | None = None
        self._control = Control(self.config.socket)
        self.edge = Edge(self._control)
        self.origin = Origin(self._control)
        self.api_url = API_URL

    @property
    def ca_file(self) -> Path:
        """The CA that API and origin are signed by: for WARP_API_CA_FILE and HEALTH_CA_FILE."""
        return self.config.ca_file

    @property
    def pid(self) -> int:
        """The running emulator's process."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def log_file(self) -> Path:
        """What the emulator prints on stderr."""
        return self.config.state / "cloudflare.log"

    def calls(self, method: str = "", path: str = "") -> list[Call]:
        """Return the API's calls, oldest first, with this method and with `path` in their path."""
        every = [Call(**one) for one in self._control.ask("GET", "/calls")]
        return [one for one in every if method in ("", one.method) and path in one.path]

    def registrations(self) -> list[Call]:
        """Return the calls that register a device: POST …/reg."""
        return [one for one in self.calls("POST") if one.path.endswith("/reg")]

    def forget_calls(self) -> None:
        """Empty the list of calls."""
        self._control.ask("DELETE", "/calls")

    def fault(self, *faults: Fault) -> None:
        """Queue faults for the API; the first that matches a call hits it."""
        self._control.ask("POST", "/faults", [one.plain() for one in faults])

    def limit(self, calls: int | None = 3, seconds: float = 60.0, retry_after: str = "") -> None:
        """Answer 429 beyond `calls` in `seconds` from one address; None: no limit. Counting restarts."""
        self._control.ask("PUT", "/budget", {"calls": calls, "seconds": seconds, "retry_after": retry_after})

    def sell(self, licence: str, kind: str = "unlimited") -> None:
        """Make this licence key good for five devices."""
        self._control.ask("PUT", "/licences", {licence: kind})

    def revoke(self, licence: str) -> None:
        """Take it back; its devices are free ones again."""
        self._control.ask("DELETE", "/licences", licence)

    def manners(self, **settings: Any) -> None:
        """Change how the API behaves: the fields of Manners."""
        self._control.ask("PATCH", "/manners", settings)

    def port(self, state: str) -> None:
        """Leave connections to the API `open`, or have them `dropped` or `refused`."""
        self._control.ask("PUT", "/port", state)

    def certificate(self, which: Certificate) -> None:
        """Show another certificate from now on."""
        self._control.ask("PUT", "/certificate", which)

    def change(self, identity: str, **changes: Any) -> None:
        """Change a device's record: `active=False` deletes it, `revoked`, `bound`, `account_type` …"""
        self._control.ask("PATCH", "/device", {"id": identity, "changes": changes})

    def names(self, **addresses: Iterable[Address | str] | None) -> None:
        """Change the DNS zone; None: no such name. Dots are written as two underscores."""
        body = {k.replace("__", "."): v and list(map(str, v)) for k, v in addresses.items()}
        self._control.ask("PATCH", "/names", body)

    def access(self, **settings: Any) -> None:
        """Change the organisation's settings: `services`, `way`, `lifetime`, `devices_at_most`."""
        self._control.ask("PATCH", "/access", settings)

    def team_token(self, lifetime: float = 50.0) -> str:
        """Return the token that a person would get after logging in."""
        return str(self._control.ask("POST", "/access/token", {"lifetime": lifetime}))

    def heal(self) -> None:
        """Forget the API's faults that have not hit yet."""
        self._control.ask("DELETE", "/faults")

    def namespaces(self) -> dict[str, str]:
        """Return the inner namespaces as paths for `nsenter --net=`: origin, device-1, …."""
        return dict(self._control.ask("GET", "/namespaces"))

    def __enter__(self) -> Self:
        """Start it and wait until everything listens. Raises RuntimeError with its log."""
        state = self.config.state
        state.mkdir(parents=True, exist_ok=True)
        settings = state / "config.json"
        settings.write_text(self.config.dump())
        program = [sys.executable, "-m", "tests.cloudflare", "--config", str(settings)]
        # Dies with the test run, whatever ends that.
        argv = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self._netns, *program]
        root = Path(__file__).parents[2]
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=log, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}
            )
        if not self._ready():
            self._stop()
            raise RuntimeError(f"the emulator did not start:\n{self.log_file.read_text()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it; its namespaces vanish with it."""
        self._stop()

    def _ready(self) -> bool:
        process = self._process
        assert process is not None and process.stdout is not None
        deadline = time.monotonic() + READY_WITHIN
        said = b""
        while b"ready\n" not in said:
            if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return False
            got = os.read(process.stdout.fileno(), 4096)
            if not got:
                return False
            said += got
        return True

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
        self._process = None
