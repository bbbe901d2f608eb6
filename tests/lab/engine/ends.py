"""Two ends of a tunnel in namespaces of their own, whichever WireGuard drives each.

near                                                                   far
wire 192.0.2.1, .5, 2001:db8::1 ───────── veth ───────── 192.0.2.2, .6, 2001:db8::2 wire
wg 10.9.0.1, fd09::1                                                10.9.0.2, fd09::2 wg
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from nacl.public import PrivateKey

OURS = "ss-warp-wireguard"
STOCK = "/usr/bin/wireguard-go"
"""Debian's wireguard-go, which knows nothing of us."""
LEASH = ("setpriv", "--pdeathsig", "KILL", "--")
SOCKETS = Path("/var/run/wireguard")
MTU = 1280
INNER = {4: ("10.9.0.1", "10.9.0.2"), 6: ("fd09::1", "fd09::2")}
OUTER = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
PORT = 2408


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in this namespace: sockets made here stay there."""
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{namespace}").open() as there:
        os.setns(there.fileno(), os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(home.fileno(), os.CLONE_NEWNET)


@dataclass
class End:
    """One end: a namespace, a persistent TUN, an engine on it."""

    side: int
    program: str
    key: PrivateKey = field(default_factory=PrivateKey.generate)
    prepare: Callable[[], None] | None = None
    """Runs in the engine's process before it starts."""
    engine: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self.name = f"{'nf'[self.side]}{os.getpid()}"

    @property
    def public(self) -> str:
        """Its public key, in hexadecimal."""
        return bytes(self.key.public_key).hex()

    def ip(self, words: str) -> str:
        """Run ip in the namespace."""
        return run("ip", "-n", self.name, *words.split())

    def start(self) -> None:
        """Start the engine, or start it again, and wait until it listens."""
        self.kill()
        self.engine = subprocess.Popen(
            [*LEASH, "ip", "netns", "exec", self.name, self.program, "-f", self.name],
            env=os.environ | {"WG_PROCESS_FOREGROUND": "1"},
            preexec_fn=self.prepare,
        )
        deadline = time.monotonic() + 5
        while True:
            with contextlib.suppress(OSError):
                self.ask("get=1")
                return
            assert self.engine.poll() is None and time.monotonic() < deadline, f"no {self.program}"

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the engine; the TUN stays."""
        if self.engine:
            self.engine.send_signal(how)
            self.engine.wait()

    def ask(self, *lines: str) -> dict[str, str]:
        """Ask the engine; return its answer."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(SOCKETS / f"{self.name}.sock"))
            control.sendall(("\n".join(lines) + "\n\n").encode())
            answer = b""
            while not answer.endswith(b"\n\n") and (more := control.recv(65536)):
                answer += more
        said = dict(line.split("=", 1) for line in answer.decode().splitlines() if line)
        assert said["errno"] == "0", (lines, said)
        return said

    def configure(self, other: "End", endpoint: str | None, *lines: str, keepalive: int = 25) -> None:
        """Know the other end; without an endpoint wait for it to ask."""
        place = [f"endpoint={endpoint}", f"persistent_keepalive_interval={keepalive}"] if endpoint else []
        device = [f"private_key={bytes(self.key).hex()}", f"listen_port={0 if endpoint else PORT}"]
        peer = [f"public_key={other.public}", *place]
        allowed = [f"allowed_ip={INNER[family][1 - self.side]}" for family in (4, 6)]
        masks = [f"{one}/{128 if ':' in one else 32}" for one in allowed]
        self.ask("set=1", *device, *lines, "replace_peers=true", *peer, *masks)

    def status(self, name: str) -> str:
        """Read a field of /proc/PID/status."""
        assert self.engine
        pid = run("pgrep", "-f", f"^{self.program} -f {self.name}$").strip()
        text = Path(f"/proc/{pid}/status").read_text()
        return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:"))


@dataclass
class Ends:
    """Both ends, wired; `near` asks, `far` answers."""

    near: End
    far: End

    def __enter__(self) -> Self:
        ends = (self.near, self.far)
        try:
            for end in ends:
                run("ip", "netns", "add", end.name)
                end.ip("link set lo up")
            self.near.ip(f"link add wire type veth peer name wire netns {self.far.name}")
            for end in ends:
                for address in (f"{OUTER[4][end.side]}/24", f"192.0.2.{5 + end.side}/24"):
                    end.ip(f"address add {address} dev wire")
                end.ip(f"address add {OUTER[6][end.side]}/64 dev wire nodad")
                end.ip("link set wire up")
                end.ip(f"tuntap add dev {end.name} mode tun vnet_hdr")
                end.start()
                end.ip(f"address add {INNER[4][end.side]}/24 dev {end.name}")
                end.ip(f"address add {INNER[6][end.side]}/64 dev {end.name} nodad")
                end.ip(f"link set {end.name} mtu {MTU} up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self.near, self.far):
            end.kill()
            with contextlib.suppress(subprocess.CalledProcessError):
                run("ip", "netns", "del", end.name)
            (SOCKETS / f"{end.name}.sock").unlink(missing_ok=True)

    def connect(self, family: int = 4, port: int = PORT, **options: int) -> None:
        """Let them know each other, and wait until packets pass."""
        self.far.configure(self.near, None)
        host = OUTER[4][1] if family == 4 else f"[{OUTER[6][1]}]"
        self.near.configure(self.far, f"{host}:{port}", **options)
        self.passing()

    def passing(self, limit: float = 5.0) -> float:
        """Send until one packet comes through; return the seconds it took."""
        begun = time.monotonic()
        with self.socket("far", 4) as far, self.socket("near", 4) as near:
            far.bind((INNER[4][1], 0))
            far.settimeout(0.002)
            while time.monotonic() < begun + limit:
                near.sendto(b"", far.getsockname())
                with contextlib.suppress(TimeoutError):
                    far.recv(1)
                    return time.monotonic() - begun
        raise TimeoutError

    def socket(self, end: str, family: int, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """Open a socket at this end."""
        with inside(getattr(self, end).name):
            return socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind)
