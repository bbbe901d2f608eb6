"""A stock WireGuard client and stock probes: what proves the emulator without the product."""

import base64
import contextlib
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from nacl.public import PrivateKey

from tests.cloudflare.config import API_NAME, ECHO_PORT
from tests.lab.topology import Lab, Place

UAPI_DIRECTORY = Path("/var/run/wireguard")


@dataclass(frozen=True, slots=True)
class Account:
    """A registration made by hand."""

    private_key: str
    body: dict[str, Any]

    @property
    def addresses(self) -> tuple[str, str]:
        inner = self.body["config"]["interface"]["addresses"]
        return inner["v4"], inner["v6"]

    @property
    def endpoints(self) -> tuple[str, str]:
        """IPv4 and IPv6, without the port 0."""
        endpoint = self.body["config"]["peers"][0]["endpoint"]
        return endpoint["v4"].removesuffix(":0"), endpoint["v6"].removesuffix("]:0").removeprefix("[")


def new_key() -> tuple[str, str]:
    """Return a private key and its public one, base64."""
    private = PrivateKey.generate()
    return base64.b64encode(bytes(private)).decode(), base64.b64encode(bytes(private.public_key)).decode()


def call(
    lab: Lab, place: Place, method: str, path: str, *, limit: float = 5.0, **options: Any
) -> httpx.Response:
    """Call the API from there, by its address; raises httpx.HTTPError."""
    context = ssl.create_default_context(cafile=str(lab.cloudflare.ca_file))
    address = lab.cloudflare.config.api_addresses[0]
    options["headers"] = {"host": API_NAME} | options.get("headers", {})
    with lab.inside(place), httpx.Client(verify=context, trust_env=False, timeout=limit) as client:
        sni = {"sni_hostname": API_NAME}
        return client.request(method, f"https://{address}{path}", extensions=sni, **options)


def register(lab: Lab, place: Place) -> Account:
    """Register a device from there."""
    private, public = new_key()
    answer = call(lab, place, "POST", "/v0a2158/reg", json={"key": public, "tos": "2026-01-01T00:00:00.000Z"})
    assert answer.status_code == 200, answer.text
    return Account(private, answer.json())


class Client:
    """An engine on a persistent TUN, configured by hand."""

    def __init__(self, lab: Lab, place: Place, program: str) -> None:
        self._lab, self._place, self._program = lab, place, program
        self.name = f"w{os.getpid()}{place.lower()}"
        self._socket = UAPI_DIRECTORY / f"{self.name}.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def restart(self) -> None:
        """Restart the engine, unconfigured.

        Needed before an endpoint of another family: after IPv4, wireguard-go 0.0.20231211 sends what is for
        an IPv6 endpoint to its first four bytes.
        """
        self.stop()
        argv = [self._program, "-f", self.name]
        self._process = self._lab.popen(
            self._place, argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 5
        while not self._socket.exists():
            assert self._process.poll() is None and time.monotonic() < deadline, (
                f"{self._program} did not start"
            )
        self._lab.run(self._place, ["ip", "link", "set", self.name, "mtu", "1280", "up"])

    def stop(self) -> None:
        """End the engine; the interface stays."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._socket.unlink(missing_ok=True)

    def configure(self, account: Account, endpoint: str) -> None:
        """Set the key and replace the peer, with everything allowed."""
        peer = account.body["config"]["peers"][0]["public_key"]
        lines = [
            "set=1",
            f"private_key={base64.b64decode(account.private_key).hex()}",
            "replace_peers=true",
            f"public_key={base64.b64decode(peer).hex()}",
            f"endpoint={endpoint}",
            "allowed_ip=0.0.0.0/0",
            "allowed_ip=::/0",
            "persistent_keepalive_interval=25",
        ]
        with socket.socket(socket.AF_UNIX) as uapi:
            uapi.connect(str(self._socket))
            uapi.sendall(("\n".join(lines) + "\n\n").encode())
            assert b"errno=0" in uapi.recv(4096)

    def route(self, *addresses: str) -> None:
        """Send these through the tunnel."""
        for one in addresses:
            self._lab.run(self._place, ["ip", "route", "replace", one, "dev", self.name])


@contextmanager
def client(lab: Lab, place: Place, account: Account, program: str = "wireguard-go") -> Iterator[Client]:
    """Run a client there, connected to the account's own IPv4 endpoint at 2408; no routes yet."""
    made = Client(lab, place, program)
    lab.run(place, ["ip", "tuntap", "add", "dev", made.name, "mode", "tun", "vnet_hdr"])
    try:
        made.restart()
        for address, length in zip(account.addresses, (32, 128), strict=True):
            command = ["ip", "address", "add", f"{address}/{length}", "dev", made.name]
            lab.run(place, command + (["nodad"] if length == 128 else []))
        made.configure(account, f"{account.endpoints[0]}:2408")
        yield made
    finally:
        made.stop()
        lab.run(place, ["ip", "link", "del", made.name])


def trace(lab: Lab, place: Place, url: str) -> dict[str, str]:
    """Fetch a trace from there."""
    context = ssl.create_default_context(cafile=str(lab.cloudflare.ca_file))
    with lab.inside(place):
        text = httpx.get(url, verify=context, trust_env=False, timeout=10.0).text
    return dict(line.split("=", 1) for line in text.splitlines())


def echo(
    lab: Lab,
    place: Place,
    target: str,
    payload: bytes,
    *,
    source: str = "",
    tries: int = 1,
    wait: float = 1.0,
) -> str | None:
    """Send a UDP probe up to `tries` times; return the address the origin saw, None without an answer."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with lab.inside(place), socket.socket(family, socket.SOCK_DGRAM) as udp:
        if source:
            udp.bind((source, 0))
        udp.settimeout(wait)
        for _ in range(tries):
            with contextlib.suppress(TimeoutError):
                udp.sendto(payload, (target, ECHO_PORT))
                answer, sender = udp.recvfrom(65535)
                assert sender[:2] == (target, ECHO_PORT)
                said, _, seen = answer.rpartition(b"|")
                assert said == payload
                return seen.decode().split()[0]
    return None
