"""The light question whether the kernel has WireGuard agrees with the Netlink door's answer."""

import errno
import subprocess

import anyio
import pytest

from entrypoint.early.placement import PROBE_LINK, kernel_has_wireguard
from entrypoint.linux.kernel_objects import Link
from entrypoint.linux.netlink import SystemNetlink
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
    assert PROBE_LINK[:-1].decode() not in links
