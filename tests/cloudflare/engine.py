"""One WireGuard (tests/cloudflare/wireguard): started so that it answers from the address it was asked at.

With UDP_GRO on its sockets it forgets the control message of each datagram when it splits them (wireguard-go
0.0.20231211, splitCoalescedMessages copies no NN), and answers from whatever address the route prefers. A
seccomp filter refuses just that socket option; wireguard-go then reads datagrams one by one and is right.
"""

import base64
import contextlib
import ctypes
import mmap
import os
import platform
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import anyio

from tests.pace import longer

UAPI_DIRECTORY = Path("/var/run/wireguard")
STARTS_WITHIN = longer(5)

SETSOCKOPT = {"x86_64": (0xC000003E, 54), "aarch64": (0xC00000B7, 208)}
"""Per machine: the audit architecture and the number of setsockopt."""
IPPROTO_UDP, UDP_GRO = 17, 104
REFUSED = 0x00050000 | 92  # SECCOMP_RET_ERRNO, ENOPROTOOPT
ALLOWED = 0x7FFF0000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2


def gro_refused() -> bytes:
    """Return the filter program: ENOPROTOOPT for setsockopt(…, IPPROTO_UDP, UDP_GRO), all else passes."""
    architecture, number = SETSOCKOPT[platform.machine()]
    load, equal, answer = 0x20, 0x15, 0x06
    # Code, jump if true, jump if false, operand. In seccomp_data: 4 arch, 0 nr, 24 and 32 arguments.
    steps = [
        *((load, 0, 0, 4), (equal, 0, 7, architecture)),
        *((load, 0, 0, 0), (equal, 0, 5, number)),
        *((load, 0, 0, 24), (equal, 0, 3, IPPROTO_UDP)),
        *((load, 0, 0, 32), (equal, 0, 1, UDP_GRO)),
        *((answer, 0, 0, REFUSED), (answer, 0, 0, ALLOWED)),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


class Ledger:
    """Memory shared with an engine: whether it refuses what lacks the device's reserved bytes, and counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(bytes(24))
        with file.open("r+b") as opened:
            self._words = memoryview(mmap.mmap(opened.fileno(), 24)).cast("Q")

    def refuse(self, on: bool) -> None:
        """Refuse them from now on, or take them."""
        self._words[0] = on

    def counts(self) -> tuple[int, int]:
        """Return how many datagrams came with the bytes, and without."""
        return self._words[1], self._words[2]


class Engine:
    """One WireGuard, for one device and one family of the outer address, on a persistent TUN.

    `reserved` are the device's bytes; answers carry what was asked with. The ledger lies in `directory`.
    """

    def __init__(
        self, interface: str, port: int, reserved: bytes, directory: Path, *, gro: bool = False
    ) -> None:
        self._gro = gro
        self.interface, self._port, self._reserved = interface, port, reserved
        self.ledger = Ledger(directory / f"{interface}.ledger")
        self._socket = UAPI_DIRECTORY / f"{interface}.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in this thread's namespace; it dies with us, or at `stop`."""
        libc = ctypes.CDLL(None)
        program = gro_refused()
        steps = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(steps))
        header = ctypes.create_string_buffer(head, len(head))

        def prepare() -> None:
            wrong = libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if not self._gro:
                wrong = wrong or libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                wrong = wrong or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)
            if wrong:
                os._exit(126)

        # We are single-threaded, so Python may run between fork and exec.
        environment = {"WG_CLIENT_ID": ",".join(map(str, self._reserved)), "WG_LEDGER": str(self.ledger.file)}
        self._process = subprocess.Popen(
            ["wireguard-edge", self.interface],
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            preexec_fn=prepare,
        )

    async def answering(self) -> None:
        """Wait until it can be configured. Raises TimeoutError."""
        with anyio.fail_after(STARTS_WITHIN):
            while not self._answers():  # noqa: ASYNC110 - another process, no event to wait for
                await anyio.sleep(0.005)

    def listen(self, private_key: str, public_key: str, allowed: Sequence[str]) -> None:
        """Forget every session; know this peer alone (base64 keys), with these addresses; none when empty."""
        lines = [f"private_key={_hex(private_key)}", f"listen_port={self._port}", "replace_peers=true"]
        self._set(lines)
        if allowed:
            self._set([f"public_key={_hex(public_key)}", *(f"allowed_ip={one}" for one in allowed)])

    def counters(self) -> dict[str, float]:
        """Return handshake (seconds since 1970, 0 = never), rx_bytes and tx_bytes of the peer.

        And how many datagrams came with the reserved bytes, and without.
        """
        got = dict(one.split("=", 1) for one in self._converse("get=1\n\n").splitlines() if "=" in one)
        seconds = float(got.get("last_handshake_time_sec", 0))
        with_reserved, without_reserved = self.ledger.counts()
        return {
            "handshake": seconds + float(got.get("last_handshake_time_nsec", 0)) / 1e9,
            "rx_bytes": int(got.get("rx_bytes", 0)),
            "tx_bytes": int(got.get("tx_bytes", 0)),
            "with_reserved": with_reserved,
            "without_reserved": without_reserved,
        }

    def stop(self) -> None:
        """End it; the interface stays."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self._converse("get=1\n\n"))
        return False

    def _set(self, lines: list[str]) -> None:
        answer = self._converse("\n".join(["set=1", *lines]) + "\n\n")
        if "errno=0" not in answer:
            raise RuntimeError(f"the engine refused: {answer.strip()}")

    def _converse(self, request: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(longer(2))
            client.connect(str(self._socket))
            client.sendall(request.encode())
            answer = b""
            while not answer.endswith(b"\n\n") and (got := client.recv(65536)):
                answer += got
            return answer.decode()


def _hex(key: str) -> str:
    return base64.b64decode(key).hex()
