"""A Shadowsocks client in the lab: the real sslocal, spoken to by SOCKS5 (RFC 1928)."""

import hashlib
import http.client
import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from tests.cloudflare.config import ECHO_PORT
from tests.lab.product import eventually
from tests.lab.topology import Lab, Place
from tests.pace import longer

type Target = IPv4Address | IPv6Address | str

SOCKS = ("127.0.0.1", 1080)
PATIENCE = longer(10)


def encode(target: Target, port: int) -> bytes:
    """Return a SOCKS5 address: type, address, port."""
    if isinstance(target, str):
        return b"\x03" + bytes([len(target)]) + target.encode() + struct.pack("!H", port)
    return (b"\x01" if target.version == 4 else b"\x04") + target.packed + struct.pack("!H", port)


def decode(data: bytes) -> tuple[str, int, bytes]:
    """Return host, port and the rest of what starts with a SOCKS5 address."""
    size = {1: 4, 4: 16}[data[0]]
    host, rest = data[1 : 1 + size], data[1 + size :]
    return str(ip_address(host)), struct.unpack("!H", rest[:2])[0], rest[2:]


def origin_url(target: Target) -> str:
    """Return the host part of a URL for `target`."""
    return f"[{target}]" if isinstance(target, IPv6Address) else str(target)


@dataclass(frozen=True, slots=True)
class Reached:
    """What the origin's trace said of us."""

    ip: str
    warp: str


class Association:
    """One SOCKS5 UDP association; datagrams by it come back in any order."""

    def __init__(self, control: socket.socket, udp: socket.socket, relay: tuple[str, int]) -> None:
        self._control, self.socket, self._relay = control, udp, relay

    def send(self, payload: bytes, target: Target, port: int = ECHO_PORT) -> None:
        """Send one datagram to `target`."""
        self.socket.sendto(b"\x00\x00\x00" + encode(target, port) + payload, self._relay)

    def receive(self) -> tuple[str, int, bytes]:
        """Return the next datagram: from which host and port, and what. Raises TimeoutError."""
        return decode(self.socket.recv(65535)[3:])

    def close(self) -> None:
        """End the association."""
        self._control.close()
        self.socket.close()


class Client:
    """sslocal in a place of the lab."""

    def __init__(self, lab: Lab, place: Place = "C", socks: tuple[str, int] = SOCKS) -> None:
        self._lab, self._place, self._socks = lab, place, socks

    def tcp(self, target: Target, port: int, timeout: float = PATIENCE) -> socket.socket:
        """Connect through the proxy; raises ConnectionError when it says no, TimeoutError."""
        with self._lab.inside(self._place):
            sock = socket.socket()
        sock.settimeout(timeout)
        try:
            sock.connect(self._socks)
            sock.sendall(b"\x05\x01\x00")
            assert sock.recv(2) == b"\x05\x00"
            sock.sendall(b"\x05\x01\x00" + encode(target, port))
            head = sock.recv(4, socket.MSG_WAITALL)
            if len(head) < 4 or head[1]:
                raise ConnectionError(f"SOCKS5 answer {head[1:2].hex() or 'none'}")
            sock.recv({1: 6, 4: 18}[head[3]], socket.MSG_WAITALL)
        except BaseException:
            sock.close()
            raise
        return sock

    def udp(self, timeout: float = PATIENCE) -> Association:
        """Open a UDP association."""
        with self._lab.inside(self._place):
            control, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with ExitStack() as stack:
            stack.enter_context(control)
            stack.enter_context(udp)
            control.settimeout(timeout)
            control.connect(self._socks)
            control.sendall(b"\x05\x01\x00")
            assert control.recv(2) == b"\x05\x00"
            control.sendall(b"\x05\x03\x00" + encode(IPv4Address("0.0.0.0"), 0))
            answer = control.recv(64)
            assert answer[:2] == b"\x05\x00", answer
            host, port, _rest = decode(answer[3:])
            udp.settimeout(timeout)
            udp.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: bursts are not our loss
            udp.bind(("127.0.0.1", 0))
            stack.pop_all()
        return Association(control, udp, (host, port))

    def request(
        self, target: Target, path: str, *, body: bytes | None = None, timeout: float = PATIENCE
    ) -> bytes:
        """GET (POST with a body) `path` by HTTP from `target` through the proxy; return the answer's body."""
        connection = http.client.HTTPConnection(origin_url(target), timeout=timeout)
        connection.sock = self.tcp(target, 80, timeout)
        try:
            connection.request("POST" if body is not None else "GET", path, body=body)
            answer = connection.getresponse()
            assert answer.status == 200, answer.status
            return answer.read()
        finally:
            connection.close()

    def trace(self, target: Target, timeout: float = PATIENCE) -> Reached:
        """Return what `target` says of us."""
        text = self.request(target, "/cdn-cgi/trace", timeout=timeout).decode()
        fields = dict(line.split("=", 1) for line in text.splitlines())
        return Reached(fields["ip"], fields["warp"])

    def download(self, target: Target, size: int) -> str:
        """Download `size` bytes; return their sha256."""
        return hashlib.sha256(self.request(target, f"/bytes/{size}", timeout=longer(60))).hexdigest()

    def upload(self, target: Target, data: bytes) -> str:
        """Upload `data`; return the sha256 that the origin saw."""
        return self.request(target, "/sink", body=data, timeout=longer(60)).decode().strip()


@contextmanager
def shadowsocks_client(
    lab: Lab,
    directory: Path,
    server: Target,
    method: str,
    password: str,
    *,
    port: int = 8388,
    place: Place = "C",
) -> Iterator[Client]:
    """Run sslocal for this server until the block ends."""
    config = directory / "sslocal.json"
    config.write_text(
        json.dumps(
            {
                "local_address": SOCKS[0],
                "local_port": SOCKS[1],
                "server": str(server),
                "server_port": port,
                "method": method,
                "password": password,
                "mode": "tcp_and_udp",
                "outbound_udp_allow_fragmentation": True,
            }
        )
    )
    log = (directory / "sslocal.log").open("wb")
    process = lab.popen(place, ["sslocal", "-c", str(config)], stdout=log, stderr=subprocess.STDOUT)
    try:
        client = Client(lab, place)

        def listening() -> bool:
            try:
                client.udp().close()
            except ConnectionRefusedError:
                return False
            return True

        eventually(listening, "sslocal listens")
        yield client
    finally:
        process.kill()
        process.wait()
        log.close()
