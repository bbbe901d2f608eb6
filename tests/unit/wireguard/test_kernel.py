"""The kernel's WireGuard: its messages, encoded and decoded again, and its device behind the door."""

import logging
from base64 import b64decode, b64encode
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from pyroute2.netlink.generic.wireguard import wgmsg

from entrypoint.addresses import Endpoint
from entrypoint.errors import PlatformError
from entrypoint.linux.kernel_objects import DeviceConfig, LinkState, Stats
from entrypoint.linux.netlink import wireguard_message, wireguard_stats
from entrypoint.linux.world import World
from entrypoint.wireguard.device import Choice
from entrypoint.wireguard.open import Places, check_available, open_device
from tests.fakes.clock import FakeClock
from tests.fakes.links import FakeLinks
from tests.fakes.processes import FakeProcesses

PRIVATE = b64encode(b"\x01" * 32).decode()
PUBLIC = b64encode(b"\x02" * 32).decode()


def config(endpoint: str = "162.159.192.1") -> DeviceConfig:
    return DeviceConfig("wg0", PRIVATE, PUBLIC, Endpoint(ip_address(endpoint), 2408), 0x1000, 25)


def again(message: wgmsg) -> wgmsg:
    """The message as the kernel would read it."""
    message.encode()
    copy = wgmsg(message.data)
    copy.decode()
    return copy


@pytest.mark.parametrize("endpoint", ["162.159.192.1", "2606:4700:d0::a29f:c001"])
def test_a_configuration_is_one_message_that_replaces_the_peers(endpoint: str) -> None:
    message = again(wireguard_message(config(endpoint)))
    assert message["cmd"] == 1
    assert message.get_attr("WGDEVICE_A_IFNAME") == "wg0"
    assert message.get_attr("WGDEVICE_A_FLAGS") == 1
    assert message.get_attr("WGDEVICE_A_FWMARK") == 0x1000
    assert b64decode(message.get_attr("WGDEVICE_A_PRIVATE_KEY")) == b"\x01" * 32
    (peer,) = message.get_attr("WGDEVICE_A_PEERS")
    assert b64decode(peer.get_attr("WGPEER_A_PUBLIC_KEY")) == b"\x02" * 32
    assert peer.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == 25
    at = peer.get_attr("WGPEER_A_ENDPOINT")
    assert (at["addr"], at["port"]) == (endpoint, 2408)
    assert [ip["addr"] for ip in peer.get_attr("WGPEER_A_ALLOWEDIPS")] == ["0.0.0.0/0", "::/0"]


def test_counters_are_read_from_a_listing() -> None:
    message = wgmsg()
    message["attrs"] = [
        ["WGDEVICE_A_IFNAME", "wg0"],
        [
            "WGDEVICE_A_PEERS",
            [
                {
                    "attrs": [
                        ["WGPEER_A_PUBLIC_KEY", PUBLIC],
                        ["WGPEER_A_LAST_HANDSHAKE_TIME", {"tv_sec": 1_800_000_000, "tv_nsec": 500_000_000}],
                        ["WGPEER_A_RX_BYTES", 92],
                        ["WGPEER_A_TX_BYTES", 148],
                    ]
                }
            ],
        ],
    ]
    assert wireguard_stats([again(message)]) == Stats(1_800_000_000.5, 92, 148)


def test_a_device_without_a_peer_has_no_counters() -> None:
    message = wgmsg()
    message["attrs"] = [["WGDEVICE_A_IFNAME", "wg0"]]
    assert wireguard_stats([again(message)]) == Stats(0, 0, 0)


LOG = logging.getLogger("test")
UNUSED = cast("Any", None)


def world(links: FakeLinks) -> World:
    clock = FakeClock()
    return World(clock=clock, http=UNUSED, netlink=links, nft=UNUSED, processes=FakeProcesses(links, clock))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "tun").touch()
    return Places(tun=tmp_path / "tun", sockets=tmp_path / "wireguard")


@pytest.mark.anyio
@pytest.mark.parametrize("choice", ["auto", "kernel"])
async def test_the_kernel_is_the_first_choice(choice: Choice, places: Places) -> None:
    links = FakeLinks(kernel=True)
    async with open_device(choice, config(), world(links), LOG, places) as device:
        assert (device.name, device.implementation) == ("wg0", "kernel")
        assert links.devices == {"wg0": config()}
        assert await device.stats() == Stats(1_800_000_000.0, 92, 148)
        other = replace(config(), endpoint=Endpoint(ip_address("162.159.192.1"), 500))
        await device.configure(other)
        links.delete("wg0")
        await device.recreate()
        assert links.devices == {"wg0": other}
    assert list(links.links) == ["lo"]


@pytest.mark.anyio
async def test_userspace_can_be_chosen_where_the_kernel_could(places: Places) -> None:
    links = FakeLinks(kernel=True)
    async with open_device("userspace", config(), world(links), LOG, places) as device:
        assert device.implementation == "userspace"
        assert links.links["wg0"].kind == "tun"


@pytest.mark.anyio
async def test_the_fallback_is_one_line(places: Places, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    links = FakeLinks()
    async with open_device("auto", config(), world(links), LOG, places) as device:
        assert device.implementation == "userspace"
    assert [record.message for record in caplog.records] == [
        "this kernel has no WireGuard: using ss-warp-wireguard"
    ]


async def refusal(choice: Choice, links: FakeLinks, places: Places) -> PlatformError:
    """What `require_engine` and `open_device` both say, with nothing left behind."""
    said = []
    with pytest.raises(PlatformError) as first:
        await check_available(choice, links, places)
    said.append(first.value)
    with pytest.raises(PlatformError) as second:
        async with open_device(choice, config(), world(links), LOG, places):
            pass
    assert first.value.hint == second.value.hint
    return second.value


@pytest.mark.anyio
async def test_no_kernel_wireguard_where_it_is_demanded(places: Places) -> None:
    error = await refusal("kernel", FakeLinks(), places)
    assert "no WireGuard" in error.message
    assert "WIREGUARD_IMPLEMENTATION=auto" in error.hint
    assert error.exit_code == 77


@pytest.mark.anyio
@pytest.mark.parametrize("choice", ["auto", "kernel", "userspace"])
async def test_no_net_admin(choice: Choice, places: Places) -> None:
    links = FakeLinks(net_admin=False)
    with pytest.raises(PlatformError) as caught:
        async with open_device(choice, config(), world(links), LOG, places):
            pass
    assert str(caught.value) == "cannot create wg0: Operation not permitted (add cap_add: [NET_ADMIN])"


@pytest.mark.anyio
async def test_no_tun_node(places: Places) -> None:
    links = FakeLinks()
    places.tun.unlink()
    error = await refusal("auto", links, places)
    assert error.hint == "add devices: [/dev/net/tun]"
    assert links.log == []


@pytest.mark.anyio
async def test_no_room_for_the_socket(places: Places) -> None:
    blocked = replace(places, sockets=places.tun / "wireguard")
    error = await refusal("auto", FakeLinks(), blocked)
    assert error.hint == "add tmpfs: [/run]"


@pytest.mark.anyio
async def test_a_leftover_is_deleted_first(places: Places) -> None:
    links = FakeLinks(kernel=True)
    links.links["wg0"] = LinkState(9, "wg0", "tun", up=True, mtu=1280)
    async with open_device("kernel", config(), world(links), LOG, places):
        assert links.links["wg0"].kind == "wireguard"
    assert list(links.links) == ["lo"]


@pytest.mark.anyio
async def test_a_foreign_device_is_never_touched(places: Places) -> None:
    links = FakeLinks(kernel=True)
    links.links["wg0"] = LinkState(9, "wg0", "veth", up=True, mtu=1500)
    with pytest.raises(PlatformError, match="not ours") as caught:
        async with open_device("auto", config(), world(links), LOG, places):
            pass
    assert "WIREGUARD_INTERFACE" in caught.value.hint
    assert links.links["wg0"].kind == "veth"
    assert links.log == []


@pytest.mark.anyio
@pytest.mark.parametrize("kernel", [True, False])
async def test_the_probe_leaves_nothing(kernel: bool, places: Places) -> None:
    links = FakeLinks(kernel=kernel)
    await check_available("auto", links, places)
    assert list(links.links) == ["lo"]


@pytest.mark.anyio
async def test_an_error_of_what_runs_inside_is_not_taken_for_ours(places: Places) -> None:
    links = FakeLinks()
    with pytest.raises(PermissionError):
        async with open_device("auto", config(), world(links), LOG, places):
            raise PermissionError(1, "another's")
    assert list(links.links) == ["lo"]
