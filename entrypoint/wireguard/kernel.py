"""The kernel's WireGuard: its device behind the Netlink door, and generic netlink by pyroute2."""

import os
import socket
from collections.abc import Callable

import anyio

from entrypoint.network.plan import Link
from entrypoint.ports import Netlink
from entrypoint.pyroute import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkError
from entrypoint.pyroute import wireguard as wg
from entrypoint.wireguard.device import DeviceConfig, Implementation, Stats, Trouble, delete


class KernelDevice:
    """A device in the kernel (see device.Device)."""

    implementation: Implementation = "kernel"

    def __init__(self, config: DeviceConfig, netlink: Netlink) -> None:
        self._config = config
        self._netlink = netlink

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._config.name

    async def configure(self, config: DeviceConfig) -> None:
        """Set key, mark and peer, replacing the old peer."""
        self._config = config
        await self._netlink.set_wireguard(config)

    async def recreate(self) -> None:
        """Make the interface anew."""
        await delete(self._netlink, self.name)
        await self._netlink.add(Link(self.name, "wireguard"))
        await self._netlink.set_wireguard(self._config)

    async def keep(self, report: Callable[[Trouble], None]) -> None:
        """Do nothing, for ever: the kernel's engine does not die, and a lost link is seen by others."""
        await anyio.sleep_forever()

    async def stats(self) -> Stats:
        """Read the counters."""
        return await self._netlink.wireguard(self.name)


async def set_device(config: DeviceConfig) -> None:
    """Configure a kernel device in one message; the old peers are gone afterwards. Raises OSError.

    The key reads back clamped: compare public keys.
    """
    await _converse(set_message(config), NLM_F_REQUEST | NLM_F_ACK)


async def read_device(name: str) -> Stats:
    """Read a kernel device's counters. Raises OSError, ENODEV when there is no such device."""
    request = wg.wgmsg()
    request["cmd"] = wg.WG_CMD_GET_DEVICE
    request["attrs"] = [["WGDEVICE_A_IFNAME", name]]
    return read_stats(await _converse(request, NLM_F_REQUEST | NLM_F_DUMP))


def set_message(config: DeviceConfig) -> wg.wgmsg:
    """Return the message that makes `config` the whole configuration.

    Built by hand because pyroute2's `set` cannot replace the peers (WGDEVICE_F_REPLACE_PEERS).
    """
    endpoint = {"addr": str(config.endpoint.address), "port": config.endpoint.port}
    networks = [
        {
            "attrs": [
                ["WGALLOWEDIP_A_FAMILY", socket.AF_INET if network.version == 4 else socket.AF_INET6],
                ["WGALLOWEDIP_A_IPADDR", network.network_address.packed],
                ["WGALLOWEDIP_A_CIDR_MASK", network.prefixlen],
            ]
        }
        for network in config.allowed_ips
    ]
    peer = [
        ["WGPEER_A_PUBLIC_KEY", config.peer_public_key],
        ["WGPEER_A_ENDPOINT", endpoint],
        ["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", config.keepalive],
        ["WGPEER_A_FLAGS", wg.WGPEER_F_REPLACE_ALLOWEDIPS],
        ["WGPEER_A_ALLOWEDIPS", networks],
    ]
    message = wg.wgmsg()
    message["cmd"] = wg.WG_CMD_SET_DEVICE
    message["version"] = wg.WG_GENL_VERSION
    message["attrs"] = [
        ["WGDEVICE_A_IFNAME", config.name],
        ["WGDEVICE_A_FLAGS", wg.WGDEVICE_F_REPLACE_PEERS],
        ["WGDEVICE_A_PRIVATE_KEY", config.private_key],
        ["WGDEVICE_A_FWMARK", config.mark],
        ["WGDEVICE_A_PEERS", [{"attrs": peer}]],
    ]
    return message


def read_stats(messages: list[wg.wgmsg]) -> Stats:
    """Return the counters of the one peer in a listing; a device without a peer has none."""
    for message in messages:
        for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
            time = peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")
            return Stats(
                handshake=time["tv_sec"] + time["tv_nsec"] / 1e9,
                rx_bytes=peer.get_attr("WGPEER_A_RX_BYTES"),
                tx_bytes=peer.get_attr("WGPEER_A_TX_BYTES"),
            )
    return Stats(0, 0, 0)


class _Socket(wg.AsyncWireGuard):  # type: ignore[misc]  # untyped
    module_err_level = "debug"  # else a missing module is reported on the root logger


async def _converse(message: wg.wgmsg, flags: int) -> list[wg.wgmsg]:
    """Send one message on a socket of its own: a cancelled exchange leaves the next one out of step.

    Raises OSError: ENOENT when the kernel has no WireGuard.
    """
    genl = _Socket()
    try:
        await genl.setup_endpoint()
        answers = await genl.nlm_request(message, msg_type=genl.prid, msg_flags=flags)
        return [answer async for answer in answers]
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error
    finally:
        genl.close()
