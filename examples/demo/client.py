"""Ask the origin for our address, through sslocal and ss-warp and directly; print a table.

    LINK=ss://… python -m examples.demo.client DOOR4 DOOR6

The doors are addresses in this network at which the same origin answers without ss-warp, for
comparison. Exits with 1 if any line is wrong.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Protocol

from tests.cloudflare.config import ECHO_PORT, Config
from tests.lab.client import SOCKS, Client, Reached, Target, origin_url
from tests.lab.product import eventually

TARGETS: dict[str, Target] = {
    "IPv4": IPv4Address("1.1.1.1"),
    "IPv6": IPv6Address("2606:4700:4700::1111"),
    "name": "www.cloudflare.com",
}
SSLOCAL = ["sslocal", "-b", f"{SOCKS[0]}:{SOCKS[1]}", "-U", "--server-url"]
CONTROL_PORT = 8000
TIMEOUT = 5.0


class Way(Protocol):
    """A path to the origin."""

    def tcp(self, target: Target) -> Reached:
        """Return what the origin's trace says about us."""

    def udp(self, target: Target) -> Reached:
        """Return what the origin's echo says about us, and the `warp` that it recorded."""


class Here:
    """A lab with a single place, this container: all that the lab's client needs."""

    def inside(self, _place: str) -> Any:
        """Stay here."""
        return nullcontext()


class Tunnelled:
    """Through sslocal, which listens on this machine."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._client = Client(Here())  # type: ignore[arg-type]  # a stand-in with all that the client calls

    def tcp(self, target: Target) -> Reached:
        """Use SOCKS5 CONNECT."""
        return self._client.trace(target, self._timeout)

    def udp(self, target: Target) -> Reached:
        """Use SOCKS5 UDP ASSOCIATE."""
        with closing(self._client.udp(self._timeout)) as association:
            association.send(b"demo", target)
            return echoed(association.receive()[2])


class Direct:
    """Without ss-warp: the same origin, at its address in this network."""

    def __init__(self, doors: Mapping[int, IPv4Address | IPv6Address]) -> None:
        self._doors = doors

    def _door(self, target: Target) -> IPv4Address | IPv6Address:
        return self._doors[4 if isinstance(target, str) else target.version]

    def tcp(self, target: Target) -> Reached:
        """Use a direct connection."""
        address = self._door(target)
        with closing(http.client.HTTPConnection(origin_url(address), timeout=TIMEOUT)) as connection:
            connection.request("GET", "/cdn-cgi/trace")
            text = connection.getresponse().read().decode()
        fields = dict(line.split("=", 1) for line in text.splitlines())
        return Reached(fields["ip"], fields["warp"])

    def udp(self, target: Target) -> Reached:
        """Send a datagram directly."""
        address = self._door(target)
        with socket.socket(
            socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM
        ) as sock:
            sock.settimeout(TIMEOUT)
            sock.sendto(b"demo", (str(address), ECHO_PORT))
            return echoed(sock.recv(65535))


def echoed(answer: bytes) -> Reached:
    """Read the echo; the origin's own record says whether that datagram came out of WARP."""
    source, port = answer.rpartition(b"|")[2].decode().split()
    with closing(http.client.HTTPConnection(sys.argv[1], CONTROL_PORT, timeout=TIMEOUT)) as connection:
        connection.request("GET", "/origin/seen")
        seen = json.loads(connection.getresponse().read())
    [*_, mine] = [
        one
        for one in seen
        if (one["protocol"], one["source"], one["source_port"]) == ("echo", source, int(port))
    ]
    return Reached(source, mine["warp"])


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    transport: str
    by: str
    target: Target
    tunnelled: Reached | str
    direct: Reached | str

    def fine(self) -> bool:
        """Return whether the site saw WARP's address through the tunnel and ours without it."""
        config = Config(state=Path(), uplink="")  # for its address ranges
        match self.tunnelled, self.direct:
            case Reached(far, "on"), Reached(_, "off"):
                address = ip_address(far)
                return address in (config.exits4 if address.version == 4 else config.exits6)
            case _:
                return False

    def __str__(self) -> str:
        def words(reached: Reached | str) -> str:
            return (
                f"{reached.ip:<22} warp={reached.warp:<4}"
                if isinstance(reached, Reached)
                else f"{reached:<32}"
            )

        sides = f"{words(self.tunnelled)} {words(self.direct)}"
        return (
            f"  {self.transport}  {self.by:<5} {self.target!s:<22} {sides} {'ok' if self.fine() else 'WRONG'}"
        )


def ask(way: Way, transport: str, target: Target) -> Reached | str:
    """Return the origin's answer, or why it did not answer."""
    try:
        return way.tcp(target) if transport == "TCP" else way.udp(target)
    except (OSError, AssertionError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


def main() -> int:
    """Print the table; return the exit code."""
    direct = Direct({address.version: address for address in map(ip_address, sys.argv[1:])})
    with subprocess.Popen([*SSLOCAL, os.environ["LINK"]], stdout=subprocess.DEVNULL) as process:
        try:
            eventually(listening, "sslocal listens")
            return compare(Tunnelled(), direct)
        finally:
            process.terminate()


def listening() -> bool:
    """Return whether sslocal accepts connections."""
    with socket.socket() as sock:
        return sock.connect_ex(SOCKS) == 0


def compare(tunnelled: Way, direct: Way) -> int:
    """Reach every target both ways; return the exit code."""
    print(f"  {'to':<33} {'through ss-warp, at the origin':<32} {'directly, at the origin':<32}")
    good = True
    for transport in ("TCP", "UDP"):
        for by, target in TARGETS.items():
            line = Line(
                transport, by, target, ask(tunnelled, transport, target), ask(direct, transport, target)
            )
            print(line, flush=True)
            good = good and line.fine()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
