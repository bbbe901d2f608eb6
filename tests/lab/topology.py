"""The standard lab: a client, a wire, a host under test and the emulated Cloudflare.

    C  198.51.100.50, 2001:db8:c::50          the client, off-link from H
    │  eth0
    │  to-c 198.51.100.1, 2001:db8:c::1
    R  the router: the wire. An observer sits on `to-h` (tests/lab/wire.py)
    │  to-h 203.0.113.1, 2001:db8:7::1        │  to-f 192.0.2.1, 2001:db8:f::1
    │                                         │
    │  eth0                                   │  uplink 192.0.2.2, 2001:db8:f::2
    H  203.0.113.7, 2001:db8:7::7             F  the emulated Cloudflare, and all else: R's default
       default via R                             162.159.192.0/24, 1.1.1.1, … (tests/cloudflare)

Names carry our pid and a number, so that runs side by side do not meet.
"""

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.cloudflare.client import Cloudflare
from tests.cloudflare.netns import Namespace, run
from tests.pace import longer

type Place = Literal["C", "R", "H", "F"]

PLACES: tuple[Place, ...] = ("C", "R", "H", "F")
CLIENT = (IPv4Address("198.51.100.50"), IPv6Address("2001:db8:c::50"))
HOST = (IPv4Address("203.0.113.7"), IPv6Address("2001:db8:7::7"))
ROUTER = (IPv4Address("203.0.113.1"), IPv6Address("2001:db8:7::1"))
WIRE = "to-h"
"""R's port towards H."""

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a cable: where, its name and addresses; `via`: default routes by these."""

    place: Place
    name: str
    addresses: tuple[str, str]
    via: tuple[str, str] | None = None


CABLES = (
    (
        Port("C", "eth0", ("198.51.100.50/24", "2001:db8:c::50/64"), ("198.51.100.1", "2001:db8:c::1")),
        Port("R", "to-c", ("198.51.100.1/24", "2001:db8:c::1/64")),
    ),
    (
        Port("H", "eth0", ("203.0.113.7/24", "2001:db8:7::7/64"), ("203.0.113.1", "2001:db8:7::1")),
        Port("R", WIRE, ("203.0.113.1/24", "2001:db8:7::1/64")),
    ),
    (
        Port("F", "uplink", ("192.0.2.2/24", "2001:db8:f::2/64")),
        Port("R", "to-f", ("192.0.2.1/24", "2001:db8:f::1/64"), ("192.0.2.2", "2001:db8:f::2")),
    ),
)
# F knows only these: a default back to R would let unclaimed packets run in circles.
BACK = (
    "route add 198.51.100.0/24 via 192.0.2.1",
    "route add 203.0.113.0/24 via 192.0.2.1",
    "route add 2001:db8:c::/64 via 2001:db8:f::1",
    "route add 2001:db8:7::/64 via 2001:db8:f::1",
)


IMPLEMENTATION = os.environ.get("LAB_IMPLEMENTATION", "auto")


class Lab:
    """The topology above, as a context manager. `state` holds the emulator's files.

    With `cloudflare=False` F is there but empty, and `lab.cloudflare` raises; `settings` are Config's.
    """

    def __init__(self, state: Path, *, cloudflare: bool = True, **settings: Any) -> None:
        self._number = next(_numbers)
        self._stack = ExitStack()
        settings = {"uplink": "uplink", "one_by_one": IMPLEMENTATION == "kernel", **settings}
        self._cloudflare = Cloudflare(self.name("F"), state=state, **settings) if cloudflare else None

    @property
    def cloudflare(self) -> Cloudflare:
        """The running emulator."""
        assert self._cloudflare is not None, "this lab was made without it"
        return self._cloudflare

    def name(self, place: Place) -> str:
        """Return the namespace's name, as `ip netns` knows it."""
        return f"t{os.getpid()}-{self._number}-{place}"

    def run(
        self,
        place: Place,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 30.0,
        text: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program there to its end, within `timeout` seconds (pace.py); `text` is its input.

        Raises CalledProcessError when `check` and it fails, TimeoutExpired.
        """
        done = subprocess.run(
            ["ip", "netns", "exec", self.name(place), *argv],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=longer(timeout),
            env=os.environ | (environment or {}),
        )
        if check and done.returncode:
            # CalledProcessError alone would not show what it said.
            raise AssertionError(
                f"{' '.join(argv)} in {place}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def popen(
        self,
        place: Place,
        argv: Sequence[str],
        *,
        private_run: bool = False,
        prelude: str = "",
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "subprocess.Popen[bytes]":
        """Start a program there; it dies with the test run, and at the latest with the lab.

        `private_run`: with an empty /run of its own (seen from outside as /proc/<pid>/root/run), as in a
        container: UAPI sockets and heartbeat files of neighbours do not meet. `prelude` is shell that runs
        in there before the program.
        """
        script = " && ".join(["mount -t tmpfs none /run", *([prelude] if prelude else []), 'exec "$@"'])
        own = ["unshare", "-m", "sh", "-c", script, "sh"]
        return subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name(place)),
                *(own if private_run else ()),
                *argv,
            ],
            env=os.environ | (environment or {}),
            **options,
        )

    @contextmanager
    def inside(self, place: Place) -> Iterator[None]:
        """Be there with this thread: sockets made inside stay there. No await in between."""
        namespace = Namespace.named(self.name(place))
        try:
            with namespace.entered():
                yield
        finally:
            namespace.close()

    def __enter__(self) -> Self:
        """Build it and start the emulator."""
        with ExitStack() as stack:
            for place in PLACES:
                stack.callback(self._remove, place)
                self._add(place)
            for near, far in CABLES:
                self._plug(near, far)
            self.sysctl("R", ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
            run("ip", "-n", self.name("F"), "-batch", "-", text="\n".join(BACK) + "\n")
            if self._cloudflare:
                stack.enter_context(self._cloudflare)
            self._stack = stack.pop_all()
        return self

    def rebuild(self, place: Place) -> None:
        """Take a place down and build it again, as a reboot does: nothing that was in it is left."""
        cables = [cable for cable in CABLES if place in (cable[0].place, cable[1].place)]
        for near, far in cables:
            # Namespaces end in the background; the names of the far ends are needed now.
            other = far if near.place == place else near
            run("ip", "-n", self.name(other.place), "link", "del", other.name)
        self._remove(place)
        self._add(place)
        for near, far in cables:
            self._plug(near, far)

    def _add(self, place: Place) -> None:
        run("ip", "netns", "add", self.name(place))
        # Duplicate detection would keep IPv6 from working for the first two seconds.
        self.sysctl(place, ipv6__conf__default__accept_dad=0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End everything that runs in it, and take it down."""
        self._stack.close()

    def sysctl(self, place: Place, **values: int) -> None:
        namespace = Namespace.named(self.name(place))
        namespace.sysctl(**values)
        namespace.close()

    def _plug(self, near: Port, far: Port) -> None:
        here, there = self.name(near.place), self.name(far.place)
        run(
            "ip",
            "-n",
            here,
            "link",
            "add",
            "name",
            near.name,
            "type",
            "veth",
            "peer",
            "name",
            far.name,
            "netns",
            there,
        )
        for port in (near, far):
            lines = ["link set lo up", f"link set dev {port.name} up"]
            lines += [f"address add {one} dev {port.name} nodad" for one in port.addresses]
            run("ip", "-n", self.name(port.place), "-batch", "-", text="\n".join(lines) + "\n")
        for port in (near, far):
            routes = [f"route add default via {one}" for one in port.via or ()]
            run("ip", "-n", self.name(port.place), "-batch", "-", text="\n".join(routes) + "\n")

    def _remove(self, place: Place) -> None:
        name = self.name(place)
        if not Path("/run/netns", name).exists():
            return
        for pid in run("ip", "netns", "pids", name).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        run("ip", "netns", "del", name)
