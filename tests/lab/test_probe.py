"""The light question whether the kernel has WireGuard agrees with the Netlink door's answer."""

import errno
import subprocess

import anyio
import pytest

from entrypoint.network.netlink import SystemNetlink
from entrypoint.network.plan import Link
from entrypoint.network.probe import NAME, kernel_has_wireguard
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab


def test_the_light_probe_and_the_door_agree_and_leave_nothing(lab: Lab) -> None:
    async def door() -> bool:
        try:
            await SystemNetlink().add(Link("wgprobe", "wireguard"))
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP
            return False
        await SystemNetlink().remove(Link("wgprobe", "wireguard"))
        return True

    with lab.inside("H"):
        assert kernel_has_wireguard() is anyio.run(door)
    links = subprocess.run(
        ["ip", "-n", lab.name("H"), "link"], check=True, capture_output=True, text=True
    ).stdout
    assert NAME[:-1].decode() not in links
