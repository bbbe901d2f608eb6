"""What a WireGuard interface of the kernel does as a link: its name, port, routes, and what it refuses."""

import errno
import socket
from base64 import b64encode

import pytest
from pyroute2.iproute.linux import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from entrypoint.linux.kernel_objects import Link, LinkAddress, LinkUp, Route
from entrypoint.linux.netlink import SystemNetlink
from tests.cloudflare.netns import Namespace
from tests.lab.alone import ANY4, ANY6, T4, inside
from tests.vm.devices import CONFIG, PEER, pyroute2_set, read

pytestmark = pytest.mark.vm

PORT = 5000
SHARED = b64encode(b"\x05" * 32).decode()


def test_default_needs_a_family_and_ours_have_one(namespace: Namespace) -> None:
    async def play() -> None:
        netlink = SystemNetlink()
        await netlink.add(LinkUp("wg0", 1280))
        async with AsyncIPRoute() as raw:
            with pytest.raises(NetlinkError) as refused:
                await raw.route("add", dst="default", oif=socket.if_nametoindex("wg0"), table=51820)
            assert refused.value.code == errno.EOPNOTSUPP
        for anywhere in (ANY4, ANY6):
            await netlink.add(Route(anywhere, 51820, "wg0"))
        assert {r.destination for r in (await netlink.snapshot()).routes if r.table == 51820} == {ANY4, ANY6}

    inside(namespace, play)


def test_an_unsent_packet_says_why(namespace: Namespace) -> None:
    """Without a peer ENOKEY, without an endpoint EDESTADDRREQ; also for a user without capabilities."""

    async def play() -> None:
        netlink = SystemNetlink()
        await netlink.add(LinkAddress("wg0", T4))
        await netlink.add(LinkUp("wg0", 1280))
        await netlink.add(Route(ANY4, 254, "wg0"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wg0")
            for code, peer in ((errno.ENOKEY, None), (errno.EDESTADDRREQ, {"allowed_ips": ["0.0.0.0/0"]})):
                if peer:
                    await pyroute2_set(private_key=CONFIG.private_key, peer={"public_key": PEER} | peer)
                with pytest.raises(OSError, match=rf"Errno {code}\b"):
                    sock.sendto(b"x", ("192.0.2.1", 9))

    inside(namespace, play)


def test_a_busy_port_is_refused_when_it_is_opened(namespace: Namespace) -> None:
    """By `set` on a device that is up, else by `up`. So ours sets none: a leftover cannot be in its way."""

    async def play() -> None:
        netlink = SystemNetlink()
        await netlink.add(Link("wg1", "wireguard"))
        for name in "wg0", "wg1":
            await pyroute2_set(name, private_key=CONFIG.private_key, listen_port=PORT)
        await netlink.add(LinkUp("wg0"))
        with pytest.raises(OSError, match=rf"Errno {errno.EADDRINUSE}\b"):
            await netlink.add(LinkUp("wg1"))
        await pyroute2_set("wg1", listen_port=PORT + 1)
        await netlink.add(LinkUp("wg1"))
        with pytest.raises(NetlinkError) as refused:
            await pyroute2_set("wg1", listen_port=PORT)
        assert refused.value.code == errno.EADDRINUSE

    inside(namespace, play)


def test_it_is_renamed_while_it_is_up(namespace: Namespace) -> None:
    """So the name alone does not say that our device is gone: renamed to `stolen`, it still has our key."""

    async def play() -> None:
        netlink = SystemNetlink()
        await netlink.configure_wireguard(CONFIG)
        await netlink.add(LinkUp("wg0", 1280))
        before = await netlink.link("wg0")
        namespace.ip("link set wg0 name stolen")
        after = await netlink.link("stolen")
        assert before and after
        assert (after.index, after.up) == (before.index, True)
        with pytest.raises(OSError, match=rf"Errno {errno.ENODEV}\b"):
            await netlink.wireguard_stats("wg0")
        await netlink.wireguard_stats("stolen")

    inside(namespace, play)


def test_an_alias_is_ignored_when_a_link_is_made(namespace: Namespace) -> None:
    """So what is ours is not marked on the link, but kept in network.json."""

    async def play() -> None:
        async with AsyncIPRoute() as raw:
            await raw.link("add", ifname="wg1", kind="wireguard", ifalias="ours")
            (made,) = await raw.link("get", ifname="wg1")
        assert made.get_attr("IFLA_IFALIAS") is None

    inside(namespace, play)


def test_a_preshared_key_is_cleared_by_a_zero_one(namespace: Namespace) -> None:
    async def play() -> None:
        nothing = b64encode(bytes(32)).decode()
        for key in (SHARED, nothing):
            await pyroute2_set(peer={"public_key": PEER, "preshared_key": key})
            _, (peer,) = await read()
            assert peer.get_attr("WGPEER_A_PRESHARED_KEY").decode() == key

    inside(namespace, play)
