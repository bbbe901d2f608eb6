"""The module comes and goes: what the kernel loads by itself, and what it says without."""

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrypoint.errors import PlatformError
from entrypoint.linux.netlink import read_wireguard
from entrypoint.wireguard.open import check_available, open_device
from tests.cloudflare.netns import run
from tests.lab.stand import LOG, NAME, WORLD, Edge, answered, ask, config, dress, edge, kept
from tests.pace import longer

__all__ = ["edge"]  # a fixture

pytestmark = [pytest.mark.vm, pytest.mark.anyio]


@pytest.fixture
def unloaded() -> Iterator[None]:
    """The module is gone, and the kernel cannot load it: a kernel without WireGuard."""
    loader = Path("/proc/sys/kernel/modprobe")
    before = loader.read_text()
    loader.write_text("/bin/false")
    run("modprobe", "--remove", "wireguard")
    yield
    loader.write_text(before)


async def test_unloading_the_module_deletes_live_interfaces(edge: Edge) -> None:
    """And creating one loads it again: no modprobe, no SYS_MODULE."""
    async with kept([]) as device:
        run("modprobe", "--remove", "wireguard")
        assert await WORLD.netlink.link(NAME) is None
        with pytest.raises(OSError, match=rf"Errno {errno.ENODEV}\b"):
            await device.stats()
        run("modprobe", "--remove", "wireguard")  # asking has loaded it again
        await device.recreate()
        await dress()
        with ask() as sock:
            await answered(sock, longer(5))


async def test_without_the_module_auto_takes_wireguard_go(
    edge: Edge, unloaded: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(PlatformError, match="no WireGuard"):
        await check_available("kernel", WORLD.netlink)
    with pytest.raises(FileNotFoundError):
        await read_wireguard(NAME)
    assert caplog.records == [], "a missing module is no error on the root logger"
    async with open_device("auto", config(), WORLD, LOG) as device:
        assert device.implementation == "userspace"
        await dress()
        with ask() as sock:
            await answered(sock, longer(5))
    assert "this kernel has no WireGuard: using ss-warp-wireguard" in caplog.messages


async def test_nobody_without_the_capability(edge: Edge) -> None:
    program = """
import anyio
from entrypoint.errors import PlatformError
from entrypoint.wireguard.open import check_available
from tests.lab.stand import WORLD
try:
    anyio.run(check_available, "kernel", WORLD.netlink)
except PlatformError as error:
    print(error)
"""
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps", "-all")
    said = run(*nobody, sys.executable, "-c", program)
    assert "NET_ADMIN" in said
