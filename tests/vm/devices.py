"""WireGuard devices of the emulated machine: their keys, and how pyroute2 sets and reads them."""

from base64 import b64encode
from ipaddress import ip_address
from typing import Any

from nacl.public import PrivateKey
from pyroute2.netlink.generic import wireguard as wg

from entrypoint.addresses import Endpoint
from entrypoint.linux.kernel_objects import DeviceConfig

PEER = b64encode(bytes(PrivateKey(b"\x02" * 32).public_key)).decode()
OWN = b"\x01" * 32
EDGE = Endpoint(ip_address("162.159.192.1"), 2408)
CONFIG = DeviceConfig("wg0", b64encode(OWN).decode(), PEER, EDGE, 0x1000, 25)


async def read() -> tuple[Any, list[Any]]:
    """Return wg0 and its peers, as pyroute2 has them."""
    sock = wg.AsyncWireGuard()
    await sock.setup_endpoint()
    try:
        messages = [one async for one in await sock.info("wg0")]
    finally:
        sock.close()
    return messages[0], [peer for one in messages for peer in one.get_attr("WGDEVICE_A_PEERS") or ()]


async def pyroute2_set(name: str = "wg0", /, **fields: Any) -> None:
    sock = wg.AsyncWireGuard()
    await sock.setup_endpoint()
    try:
        await sock.set(name, **fields)
    finally:
        sock.close()
