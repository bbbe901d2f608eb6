"""The fake kernel held against the real one where WireGuard is concerned."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import pytest

from entrypoint.linux.kernel_objects import Link, LinkAddress, LinkUp, Route, Stats
from entrypoint.linux.netlink import SystemNetlink
from entrypoint.linux.world import Netlink
from tests.cloudflare.netns import Namespace
from tests.fakes.netlink import FakeNetlink
from tests.fakes.views import show
from tests.lab.alone import ANY4, ANY6, T4, T6, inside
from tests.vm.devices import CONFIG

pytestmark = pytest.mark.vm

DEEDS: dict[str, Callable[[Netlink], Awaitable[object]]] = {
    "set, no device": lambda n: n.configure_wireguard(replace(CONFIG, name="missing")),
    "set, a TUN": lambda n: n.configure_wireguard(replace(CONFIG, name="tun0")),
    "set": lambda n: n.configure_wireguard(CONFIG),
    "read, no device": lambda n: n.wireguard_stats("missing"),
    "read, a TUN": lambda n: n.wireguard_stats("tun0"),
    "read, no peer yet": lambda n: n.wireguard_stats("wg1"),
    "made twice": lambda n: n.add(Link("wg0", "wireguard")),
    "up without a key": lambda n: n.add(LinkUp("wg1")),
}


def test_the_fake_says_what_linux_says() -> None:
    """Both of configuring, and of what an interface that is down for a moment loses."""

    async def play(netlink: Netlink) -> list[object]:
        said: list[object] = []
        await netlink.add(Link("tun0", "tun"))
        await netlink.add(Link("wg0", "wireguard"))
        await netlink.add(Link("wg1", "wireguard"))
        for name, deed in DEEDS.items():
            try:
                answer = await deed(netlink)
            except OSError as error:
                said.append((name, os.strerror(error.errno or 0)))
            else:
                said.append((name, answer))
        for item in (LinkAddress("wg0", T4), LinkAddress("wg0", T6), LinkUp("wg0", 1280)):
            await netlink.add(item)
        for anywhere in (ANY4, ANY6):
            await netlink.add(Route(anywhere, 51820, "wg0"))
        said.append(show(await netlink.snapshot()))
        await netlink.remove(LinkUp("wg0"))
        await netlink.add(LinkUp("wg0", 1280))
        said.append(show(await netlink.snapshot()))
        said.append(await netlink.wireguard_stats("wg0"))
        await netlink.remove(Link("wg0", "wireguard"))
        said.append(show(await netlink.snapshot()))
        return said

    namespace = Namespace.new()
    try:
        real = inside(namespace, lambda: play(SystemNetlink()))
    finally:
        namespace.close()
    fake = anyio.run(play, FakeNetlink(has_wireguard=True))
    assert fake == real
    assert ("read, no peer yet", Stats(0, 0, 0)) in real
