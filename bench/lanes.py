"""The contestants: each a lab of its own, all up at once, and traffic in one at a time."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import singbox
from bench.ports import SINK
from tests.lab import stock
from tests.lab.client import shadowsocks_client
from tests.lab.product import Product, eventually
from tests.lab.scene import client_of
from tests.lab.topology import HOST, Lab, Place

OURS, GO, WIREGUARD, GVISOR, SYSTEM, DIRECT = (
    "ss-warp",
    "ss-warp, wireguard-go",
    "WireGuard alone",
    "sing-box, gVisor",
    "sing-box, system",
    "no tunnel",
)
KERNEL, PLAIN_KERNEL, USERSPACE = "kernel", "kernel, zeros", "userspace"
ENVIRONMENTS = {
    KERNEL: {"WIREGUARD_IMPLEMENTATION": "kernel"},
    PLAIN_KERNEL: {"WIREGUARD_IMPLEMENTATION": "kernel", "WARP_RESERVED": "off"},
    USERSPACE: {"WIREGUARD_IMPLEMENTATION": "userspace"},
}
"""Of ss-warp in the emulated machine; zeros instead of WARP's reserved bytes."""
PEERS = (GVISOR, SYSTEM)
TUNNELS = (OURS, GO, WIREGUARD, SYSTEM)
"""Without gVisor's stack, the slower one throughout: a whole run has to fit into twelve minutes."""
CHAINS = (OURS, GO, SYSTEM)
PROXIES = (OURS, *PEERS)
ENGINE = "/usr/local/bin/ss-warp-wireguard"
"""What carries the packets in userspace; in the lane GO another program is in its place."""

SETTLES_WITHIN = 20.0
LASTS_AT_MOST = 60.0
"""Seconds, beyond what a measurement takes by itself."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A way from a client to the sink: from `place`, by sslocal when `socks`."""

    name: str
    lab: Lab
    place: Place
    socks: bool

    def start(self, mode: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start the generator; it prints a line of JSON and ends with its standard input."""
        argument = json.dumps({"mode": mode, "socks": self.socks, **options})
        argv = [sys.executable, "-m", "bench.generator", argument]
        return self.lab.popen(self.place, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def measure(self, mode: str, **options: Any) -> dict[str, Any]:
        """Run the generator to its end; return its report. Raises RuntimeError when it fails."""
        process = self.start(mode, **options)
        try:
            said, _ = process.communicate(timeout=options.get("seconds", 0) + LASTS_AT_MOST)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode:
            raise RuntimeError(f"{self.name}: {mode} failed")
        return dict(json.loads(said))

    def pids(self) -> list[int]:
        """Return the processes of the contestant: all in H while nothing is measured from there."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.lab.name("H")], check=True, capture_output=True, text=True
        )
        return [int(pid) for pid in listed.stdout.split()]


@contextmanager
def sink(lab: Lab) -> Iterator[None]:
    """Run the sink in the emulated origin."""
    argv = ["nsenter", f"--net={lab.cloudflare.namespaces()['origin']}", sys.executable, "-m", "bench.sink"]
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the sink did not start")
        yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def lane(name: str, directory: Path, **settings: Any) -> Iterator[Lane]:
    """Bring up this contestant, with traffic through it proven; `settings` are the emulator's."""
    directory = directory / name.replace(" ", "-").replace(",", "")
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(directory / "cloudflare", **settings))
        for place in ("C", "H"):
            # More ports, used again at once: a thousand new connections a second for a minute.
            lab.run(place, ["sh", "-c", "echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range"])
        stack.enter_context(sink(lab))
        made = stack.enter_context(OPENERS[name](name, lab, directory))
        eventually(lambda: _works(made), f"{name} works", SETTLES_WITHIN)
        yield made


@contextmanager
def lanes(names: tuple[str, ...], directory: Path, **settings: Any) -> Iterator[list[Lane]]:
    """Bring up all of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(lane(name, directory, **settings)) for name in names]


def _works(made: Lane) -> bool:
    try:
        made.measure("latency", count=1)
    except RuntimeError:
        return False
    return True


@contextmanager
def _ours(name: str, lab: Lab, directory: Path) -> Iterator[Lane]:
    product = Product(lab, directory / "state", environment=ENVIRONMENTS.get(name))
    if name == GO:
        product.prelude = f"mount --bind /usr/local/bin/wireguard-go {ENGINE}"
    with product as first:
        first.serving()  # it registers, which the next need not
        assert first.stop() == 0
    with product:
        product.serving()
        with client_of(lab, product, directory):
            yield Lane(name, lab, "C", socks=True)


@contextmanager
def _wireguard(name: str, lab: Lab, directory: Path) -> Iterator[Lane]:
    with stock.client(lab, "H", stock.register(lab, "H"), ENGINE) as client:
        client.route(SINK)
        yield Lane(name, lab, "H", socks=False)


@contextmanager
def _singbox(name: str, lab: Lab, directory: Path) -> Iterator[Lane]:
    file = directory / "sing-box.json"
    kind: singbox.Stack = "gvisor" if name == GVISOR else "system"
    file.write_text(singbox.config(stock.register(lab, "H"), kind))
    server = (HOST[0], singbox.METHOD, singbox.PASSWORD)
    with singbox.running(lab, file), shadowsocks_client(lab, directory, *server, port=singbox.PORT):
        yield Lane(name, lab, "C", socks=True)


@contextmanager
def _direct(name: str, lab: Lab, directory: Path) -> Iterator[Lane]:
    yield Lane(name, lab, "C", socks=False)


OPENERS = {
    OURS: _ours,
    GO: _ours,
    WIREGUARD: _wireguard,
    GVISOR: _singbox,
    SYSTEM: _singbox,
    DIRECT: _direct,
    **dict.fromkeys(ENVIRONMENTS, _ours),
}
