"""Engines alone: ours, and wireguard-go with the same reserved bytes.

near ── veth ── far     a lane each, with the same program at both ends; one TCP stream from near to far

Lanes take turns, a tenth of a second each.
"""

import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

from nacl.public import PrivateKey

from bench import processes
from bench.samples import Notes, Samples
from entrypoint.addresses import Endpoint
from entrypoint.linux.kernel_objects import DeviceConfig
from entrypoint.wireguard import userspace
from tests.cloudflare.netns import Namespace
from tests.lab.product import eventually
from tests.lab.stand import text

ENGINE, GO = "ss-warp-wireguard", "wireguard-go"
ENVIRONMENT = {"WG_RESERVED": "193,29,7"}
MTU = 1280
BLOCK = 1 << 20
TURN = 16 * BLOCK
"""Bytes: some 0.1 s, so that all lanes see the same load of the machine."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A tunnel that is up, and a connection through it. `pids` are its engines."""

    sender: socket.socket
    receiver: socket.socket
    pids: tuple[int, int]
    spent: list[tuple[float, float]] = field(default_factory=list)
    """Of each turn: seconds, and the engines' processor seconds."""

    def turn(self, file: int) -> None:
        """Send TURN bytes and wait until the last is there."""
        before, begun = processes.seconds(self.pids), time.monotonic()
        sending = threading.Thread(target=send, args=(self.sender, file))
        sending.start()
        left, buffer = TURN, bytearray(BLOCK)
        while left:
            left -= self.receiver.recv_into(buffer, BLOCK, socket.MSG_TRUNC)
        self.spent.append((time.monotonic() - begun, processes.seconds(self.pids) - before))
        sending.join()


def send(sender: socket.socket, file: int) -> None:
    """Send TURN bytes without copying."""
    left = TURN
    while left:
        left -= os.sendfile(sender.fileno(), file, 0, min(left, BLOCK))


@contextmanager
def lane(name: str, number: int) -> Iterator[Lane]:
    """Build a lane, and end it."""
    keys = PrivateKey.generate(), PrivateKey.generate()
    near, far = Namespace.new(), Namespace.new()
    near.ip(f"link add wire type veth peer name wire netns {far.path}")
    with ExitStack() as stack:
        pids = []
        for end, space in enumerate((near, far)):
            device = f"bench{os.getpid()}n{number}e{end}"
            space.ip(f"address add 192.0.2.{end + 1}/24 dev wire", "link set wire up")
            space.ip(f"tuntap add dev {device} mode tun vnet_hdr")
            argv = ["setpriv", "--pdeathsig", "KILL", name, "-f", device]
            with space.entered():
                process = subprocess.Popen(argv, env=os.environ | ENVIRONMENT)
            stack.callback(process.wait)
            stack.callback(process.kill)
            config = DeviceConfig(
                name=device,
                private_key=text(keys[end]),
                peer_public_key=text(keys[1 - end].public_key),
                endpoint=Endpoint(ip_address(f"192.0.2.{2 - end}"), 2408),
                mark=0,
                keepalive=0,
                allowed_ips=(ip_network("10.9.0.0/24"),),
            )
            request = userspace.encode_uapi(config).replace("fwmark=0", "listen_port=2408")
            eventually(lambda: configured(device, request), f"{name} listens")  # noqa: B023
            space.ip(f"address add 10.9.0.{end + 1}/24 dev {device}", f"link set {device} mtu {MTU} up")
            pids.append(process.pid)
        with far.entered():
            listener = stack.enter_context(socket.create_server(("10.9.0.2", 0)))
        with near.entered():
            sender = stack.enter_context(socket.create_connection(listener.getsockname()))
        receiver, _ = listener.accept()
        stack.callback(receiver.close)
        yield Lane(sender, receiver, (pids[0], pids[1]))
    near.close()
    far.close()


def configured(device: str, request: str) -> bool:
    """Send the request; say whether it was heard. Raises RuntimeError when it was refused."""
    with socket.socket(socket.AF_UNIX) as control:
        try:
            control.connect(f"/var/run/wireguard/{device}.sock")
        except OSError:
            return False
        control.sendall(request.encode())
        if (said := control.recv(100)) != b"errno=0\n\n":
            raise RuntimeError(said.decode())
    return True


def engines(_directory: Path, rounds: int, seconds: float) -> Samples:
    """Measure both, so many seconds each a round, and what they cost both their ends."""
    notes = Notes()
    file = os.memfd_create("bulk")
    os.write(file, os.urandom(BLOCK))
    with ExitStack() as stack:
        lanes = {name: stack.enter_context(lane(name, number)) for number, name in enumerate((ENGINE, GO))}
        for name, one in lanes.items():
            notes.add("engine alone: memory, fresh", name, processes.megabytes(one.pids[:1]))
            one.turn(file)  # windows grow
        for _ in range(rounds):
            for one in lanes.values():
                one.spent.clear()
            for number in itertools.count():
                for one in list(lanes.values())[:: 1 if number % 2 else -1]:
                    one.turn(file)
                if all(sum(took for took, _ in one.spent) >= seconds for one in lanes.values()):
                    break
            for name, one in lanes.items():
                sent = TURN * len(one.spent)
                notes.add(
                    "engine alone: one stream", name, sent * 8 / 1e6 / sum(took for took, _ in one.spent)
                )
                notes.add("processor: engine alone", name, sum(cost for _, cost in one.spent) / (sent / 1e9))
        for name, one in lanes.items():
            notes.add("engine alone: memory, after load", name, processes.megabytes(one.pids[:1]))
    os.close(file)
    return notes.done()
