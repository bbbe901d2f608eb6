"""What kernel and pyroute2 do without a word: why wireguard/kernel.py and its callers are as they are."""

import struct
from base64 import b64decode, b64encode
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import anyio
import pytest
from nacl.public import PrivateKey, PublicKey
from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import wireguard as wg

from entrypoint.linux.netlink import SystemNetlink
from tests.cloudflare.netns import Namespace
from tests.lab.alone import inside
from tests.vm.devices import CONFIG, OWN, PEER, pyroute2_set, read

pytestmark = pytest.mark.vm

type Peer = dict[str, object]


def test_our_configuration_replaces_peers_and_prefixes(namespace: Namespace) -> None:
    """pyroute2's own `set` would add to them; a second peer would steal the prefixes of the first."""

    async def play() -> None:
        other = b64encode(bytes(PrivateKey(b"\x03" * 32).public_key)).decode()
        one = replace(CONFIG, allowed_ips=(ip_network("10.0.0.0/8"),))
        for config in (replace(one, peer_public_key=other), one, CONFIG):
            await SystemNetlink().configure_wireguard(config)
            device, (peer,) = await read()
            assert peer.get_attr("WGPEER_A_PUBLIC_KEY").decode() == config.peer_public_key
            assert [ip["addr"] for ip in peer.get_attr("WGPEER_A_ALLOWEDIPS")] == [
                str(network) for network in config.allowed_ips
            ]
            assert device.get_attr("WGDEVICE_A_FWMARK") == 0x1000
        await pyroute2_set(peer={"public_key": other, "allowed_ips": ["0.0.0.0/0"]})
        _, peers = await read()
        prefixes = {
            p.get_attr("WGPEER_A_PUBLIC_KEY").decode(): p.get_attr("WGPEER_A_ALLOWEDIPS") or [] for p in peers
        }
        assert [ip["addr"] for ip in prefixes[PEER]] == ["::/0"], "stolen"
        await pyroute2_set(peer={"public_key": PEER, "allowed_ips": ["10.0.0.0/8"]})
        _, peers = await read()
        assert len(peers) == 2, "the other one stays"
        (ours,) = (p for p in peers if p.get_attr("WGPEER_A_PUBLIC_KEY").decode() == PEER)
        assert {ip["addr"] for ip in ours.get_attr("WGPEER_A_ALLOWEDIPS")} == {"::/0", "10.0.0.0/8"}, "added"

    inside(namespace, play)


def test_the_private_key_reads_back_clamped(namespace: Namespace) -> None:
    """So keys are compared by their public halves; an absent key reads as None."""

    async def play() -> None:
        device, peers = await read()
        assert (device.get_attr("WGDEVICE_A_PRIVATE_KEY"), peers) == (None, [])
        unclamped = b"\xff" * 32
        await SystemNetlink().configure_wireguard(replace(CONFIG, private_key=b64encode(unclamped).decode()))
        device, _ = await read()
        shown = b64decode(device.get_attr("WGDEVICE_A_PRIVATE_KEY"))
        assert shown != unclamped
        assert shown == bytes([0xF8]) + b"\xff" * 30 + bytes([0x7F])
        public = bytes(PrivateKey(unclamped).public_key)
        assert bytes(PublicKey(b64decode(device.get_attr("WGDEVICE_A_PUBLIC_KEY")))) == public

    inside(namespace, play)


SILENT: dict[str, tuple[Peer, tuple[str, int] | None, int]] = {
    "an address without a port is ignored": ({"endpoint_addr": "192.0.2.1"}, None, 1),
    "port 0": ({"endpoint_addr": "192.0.2.1", "endpoint_port": 0}, ("192.0.2.1", 0), 1),
    "0.0.0.0": ({"endpoint_addr": "0.0.0.0", "endpoint_port": 1}, ("0.0.0.0", 1), 1),
    "a mapped address": (
        {"endpoint_addr": "::ffff:192.0.2.1", "endpoint_port": 1},
        ("::ffff:192.0.2.1", 1),
        1,
    ),
    "an unknown peer updated": ({"update_only": True}, None, 0),
    "an unknown peer removed": ({"remove": True}, None, 0),
    "our own public key": ({"public_key": b64encode(bytes(PrivateKey(OWN).public_key)).decode()}, None, 0),
    "the zero key": ({"public_key": b64encode(bytes(32)).decode()}, None, 1),
    "host bits": ({"allowed_ips": ["10.1.2.3/8"]}, None, 1),
}
"""What `set` accepts without an error: what was set, the endpoint and number of peers after it."""


@pytest.mark.parametrize("what", SILENT)
def test_the_kernel_accepts_without_a_word(namespace: Namespace, what: str) -> None:
    """So an account's key and endpoints are judged before (tests/unit/account/test_model_answers.py)."""
    peer, endpoint, count = SILENT[what]

    async def play() -> None:
        await pyroute2_set(private_key=b64encode(OWN).decode(), peer={"public_key": PEER} | peer)
        _, peers = await read()
        assert len(peers) == count
        for one in peers:
            at = one.get_attr("WGPEER_A_ENDPOINT")
            assert (at and (at["addr"], at["port"])) == endpoint

    inside(namespace, play)


def test_keepalive_0_is_off_and_a_number_too_big_is_no_message(namespace: Namespace) -> None:
    async def play() -> None:
        for seconds in (25, 0):
            await SystemNetlink().configure_wireguard(replace(CONFIG, keepalive=seconds))
            _, (peer,) = await read()
            assert peer.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == seconds
        with pytest.raises(struct.error):
            await SystemNetlink().configure_wireguard(replace(CONFIG, keepalive=70000))
        await SystemNetlink().configure_wireguard(CONFIG)

    inside(namespace, play)


def test_many_prefixes_are_one_message_up_to_a_limit(namespace: Namespace) -> None:
    async def play() -> None:
        many = tuple(ip_network((0x0A000000 + (n << 8), 24)) for n in range(2500))
        await SystemNetlink().configure_wireguard(replace(CONFIG, allowed_ips=many[:1500]))
        _, peers = await read()
        assert len(peers) > 1, "a listing splits even one peer: its parts have the same key"
        assert {one.get_attr("WGPEER_A_PUBLIC_KEY").decode() for one in peers} == {PEER}
        assert sum(len(one.get_attr("WGPEER_A_ALLOWEDIPS") or ()) for one in peers) == 1500
        with pytest.raises((OSError, struct.error)):
            await SystemNetlink().configure_wireguard(replace(CONFIG, allowed_ips=many))

    inside(namespace, play)


def test_a_cancelled_set_puts_a_shared_socket_out_of_step(namespace: Namespace) -> None:
    """Why each exchange has a socket of its own (tests/vm/test_device.py shows that ours does not mind)."""

    async def play() -> None:
        shared = wg.AsyncWireGuard()
        await shared.setup_endpoint()
        try:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(shared.set, "wg0", None, 0x77)
                    await anyio.lowlevel.checkpoint()
                    scope.cancel()
            device, _ = await read()
            assert device.get_attr("WGDEVICE_A_FWMARK") == 0x77, "it happened all the same"
            await shared.set("missing", None, 0x78)
            with pytest.raises(NetlinkError):
                await shared.set("wg0", None, 0x79)
        finally:
            shared.close()

    inside(namespace, play)


def test_a_socket_is_bound_by_hand_and_a_listing_needs_an_await(namespace: Namespace) -> None:
    async def play() -> None:
        async with wg.AsyncWireGuard() as sock:
            message = wg.wgmsg()
            message["cmd"] = wg.WG_CMD_GET_DEVICE
            message["attrs"] = [["WGDEVICE_A_IFNAME", "wg0"]]
            with pytest.raises(RuntimeError, match="bind"):
                await sock.nlm_request(message, msg_type=sock.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP)

    inside(namespace, play)


@pytest.mark.filterwarnings("ignore:.*never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("synchronous", [IPRoute, wg.WireGuard])
def test_the_synchronous_classes_do_not_work_inside_a_loop(namespace: Namespace, synchronous: Any) -> None:
    """What they have begun by then is left behind, with warnings."""

    async def play() -> None:
        with pytest.raises(RuntimeError):
            synchronous()

    inside(namespace, play)
