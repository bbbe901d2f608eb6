"""Where the real engine on a persistent TUN is tried.

our namespace                                       edge namespace
up0 192.0.2.1 ───────────── veth ─────────────────── up1 192.0.2.2
device (open_device) 10.9.0.1, fd09::1               wireguard-go of the test 10.9.0.2, fd09::2, UDP echo on 7
"""

import contextlib
import logging
import os
import socket
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from nacl.public import PrivateKey

from entrypoint.addresses import Endpoint
from entrypoint.linux.kernel_objects import DeviceConfig, LinkAddress, LinkUp
from entrypoint.linux.netlink import SystemNetlink
from entrypoint.linux.processes import SystemProcesses
from entrypoint.linux.this_machine import SystemClock
from entrypoint.linux.world import World
from entrypoint.wireguard import userspace
from entrypoint.wireguard.device import Device, Trouble
from entrypoint.wireguard.open import open_device

LOG = logging.getLogger("lab")
UNUSED = cast("Any", None)
WORLD = World(
    clock=SystemClock(), http=UNUSED, netlink=SystemNetlink(), nft=UNUSED, processes=SystemProcesses()
)
NAME = f"wl{os.getpid()}"
OURS, EDGES = PrivateKey.generate(), PrivateKey.generate()
ECHO = ("10.9.0.2", 7)
STOCK = "/usr/bin/wireguard-go"
"""Debian's, which knows nothing of reserved bytes; ours comes first in PATH."""
LEASH = ("setpriv", "--pdeathsig", "KILL", "--")


def text(key: object) -> str:
    return b64encode(bytes(key)).decode()  # type: ignore[call-overload]


def config() -> DeviceConfig:
    endpoint = Endpoint(ip_address("192.0.2.2"), 2408)
    return DeviceConfig(NAME, text(OURS), text(EDGES.public_key), endpoint, 0x1000, 25)


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


@dataclass
class Edge:
    """The other end: a namespace with a stock wireguard-go and an echo."""

    name: str = f"edge{os.getpid()}"
    engine: "subprocess.Popen[bytes] | None" = None
    stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start, or start again: sessions are forgotten."""
        self.end()
        self.engine = subprocess.Popen(
            [*LEASH, "ip", "netns", "exec", self.name, STOCK, "-f", self.name],
            env=os.environ | {"WG_PROCESS_FOREGROUND": "1"},
        )
        device = replace(
            config(),
            name=self.name,
            private_key=text(EDGES),
            peer_public_key=text(OURS.public_key),
            endpoint=Endpoint(ip_address("192.0.2.1"), 1),
            keepalive=0,
            allowed_ips=(ip_network("10.9.0.1/32"), ip_network("fd09::1/128")),
        )
        request = userspace.encode_uapi(device).replace("fwmark=4096", "listen_port=2408")
        deadline = time.monotonic() + 5
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as control:
                control.connect(f"/var/run/wireguard/{self.name}.sock")
                control.sendall(request.encode())
                assert control.recv(100) == b"errno=0\n\n"
                break
            assert time.monotonic() < deadline, "the edge does not start"
        ip(f"-n {self.name} address replace 10.9.0.2/24 dev {self.name}")
        ip(f"-n {self.name} link set dev {self.name} mtu 1280 up")

    def end(self) -> None:
        """Kill it; the far end is silent."""
        if self.engine:
            self.engine.kill()
            self.engine.wait()

    def echo(self) -> None:
        """Send back whatever comes, in a thread that lives in the namespace."""
        with Path(f"/run/netns/{self.name}").open() as namespace:
            os.setns(namespace.fileno(), os.CLONE_NEWNET)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("0.0.0.0", ECHO[1]))
            sock.settimeout(0.1)
            while not self.stopped.is_set():
                with contextlib.suppress(OSError):
                    data, sender = sock.recvfrom(2000)
                    sock.sendto(data, sender)


@pytest.fixture
def edge() -> Iterator[Edge]:
    made = Edge()
    with Path("/proc/self/ns/net").open() as home:
        os.unshare(os.CLONE_NEWNET)
        ip(f"netns add {made.name}")
        try:
            ip("link set lo up")
            ip(f"link add up0 type veth peer name up1 netns {made.name}")
            ip("address add 192.0.2.1/24 dev up0")
            ip("link set up0 up")
            ip(f"-n {made.name} address add 192.0.2.2/24 dev up1")
            ip(f"-n {made.name} link set up1 up")
            made.start()
            thread = threading.Thread(target=made.echo)
            thread.start()
            yield made
            made.stopped.set()
            thread.join()
        finally:
            made.stopped.set()
            if made.engine:
                made.engine.terminate()
                made.engine.wait()
            ip(f"netns del {made.name}")
            os.setns(home.fileno(), os.CLONE_NEWNET)


async def dress() -> None:
    """What the chain does after the interface was made: address, MTU, up."""
    await WORLD.netlink.add(LinkAddress(NAME, ip_interface("10.9.0.1/24")))
    await WORLD.netlink.add(LinkUp(NAME, 1280))


def ask() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, NAME.encode())
    sock.connect(ECHO)
    return sock


async def answered(sock: socket.socket, limit: float = 5.0) -> float:
    """Send every 10 ms until one comes back; return the seconds it took."""
    begun = time.monotonic()
    token = os.urandom(8)
    with anyio.fail_after(limit):
        while True:
            with contextlib.suppress(OSError):
                sock.send(token)
            with anyio.move_on_after(0.01):
                await anyio.wait_readable(sock)
                with contextlib.suppress(OSError):
                    if sock.recv(100) == token:
                        return time.monotonic() - begun


async def until(condition: Any, limit: float = 2.0) -> float:
    begun = time.monotonic()
    with anyio.fail_after(limit):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await anyio.sleep(0.002)
    return time.monotonic() - begun


def engines() -> list[int]:
    """The pids of the engines on our device."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal():
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[:3] == [b"ss-warp-wireguard", b"-f", NAME.encode()]:
                    found.append(int(entry.name))
    return found


@asynccontextmanager
async def kept(reports: list[Trouble]) -> AsyncIterator[Device]:
    async with open_device("auto", config(), WORLD, LOG) as device, anyio.create_task_group() as tasks:
        await dress()
        tasks.start_soon(device.keep, reports.append)
        yield device
        tasks.cancel_scope.cancel()
