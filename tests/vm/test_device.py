"""KernelDevice on a real kernel, with a real peer (the stand is drawn in tests/lab/stand.py)."""

import ctypes
import errno
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import anyio
import pytest
from nacl.public import PrivateKey

from entrypoint.wireguard.device import Device
from entrypoint.wireguard.open import check_available
from tests.cloudflare.netns import Namespace, run
from tests.conftest import Record
from tests.lab.stand import (
    NAME,
    WORLD,
    Edge,
    answered,
    ask,
    config,
    dress,
    edge,
    engines,
    ip,
    kept,
    text,
    until,
)
from tests.pace import longer

__all__ = ["edge"]  # a fixture

pytestmark = [pytest.mark.vm, pytest.mark.anyio]


def python(program: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of its own in our namespace."""
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)


async def test_it_carries_packets_and_leaves_nothing(edge: Edge) -> None:
    """The time of the last handshake is a number of seconds, not ctime's text."""
    await check_available("auto", WORLD.netlink)
    async with kept([]) as device:
        assert device.implementation == "kernel"
        with ask() as sock:
            await answered(sock, longer(5))
        stats = await device.stats()
        assert stats.rx_bytes > 0
        assert stats.tx_bytes > 0
        assert abs(stats.handshake - time.time()) < longer(5)
        assert engines() == []
    assert await WORLD.netlink.link(NAME) is None


async def test_a_new_peer_mends_a_session_that_the_edge_forgot(edge: Edge, record: Record) -> None:
    async with kept([]) as device:
        with ask() as sock:
            await answered(sock, longer(5))
            edge.start()
            with pytest.raises(TimeoutError):
                await answered(sock, 1)
            begun = time.monotonic()
            await device.configure(config())
            await answered(sock, longer(5))
            took = time.monotonic() - begun
    record("kernel: the edge forgot, peer replaced", f"{took:.2f} s, emulated")
    assert took <= longer(1)


async def test_another_private_key_works_at_once(edge: Edge, record: Record) -> None:
    """What connect() does when a rotated key's answer was lost: the other key on the same device."""
    async with kept([]) as device:
        await device.configure(replace(config(), private_key=text(PrivateKey.generate())))
        with ask() as sock:
            with pytest.raises(TimeoutError):
                await answered(sock, 1)
            begun = time.monotonic()
            await device.configure(config())
            await answered(sock, longer(5))
            record("kernel: private key changed while up", f"{time.monotonic() - begun:.2f} s, emulated")


async def test_deleted_and_recreated(edge: Edge, record: Record) -> None:
    """A socket bound to the old interface is dead, before and after; a new one works."""
    async with kept([]) as device:
        with ask() as old:
            await answered(old, longer(5))
            ip(f"link del {NAME}")
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as new,
                pytest.raises(OSError, match=rf"Errno {errno.ENODEV}\b"),
            ):
                new.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, NAME.encode())
            begun = time.monotonic()
            await device.recreate()
            await dress()
            with ask() as new:
                await answered(new, longer(5))
            record("kernel: deleted, recreated", f"{time.monotonic() - begun:.2f} s, emulated")
            with pytest.raises(OSError, match=rf"Errno {errno.ENODEV}\b"):
                old.send(b"dead")


async def test_moved_away_it_still_talks_by_where_it_was_born(edge: Edge) -> None:
    """Its UDP socket stays, so what is inside must be deleted to silence it."""
    elsewhere = Namespace.new()
    try:
        async with kept([]) as device:
            with ask() as sock:
                await answered(sock, longer(5))
            ip(f"link set {NAME} netns {elsewhere.path}")
            elsewhere.ip(f"address add 10.9.0.1/24 dev {NAME}", f"link set {NAME} up")
            with elsewhere.entered():
                moved = ask()
            with moved:
                await answered(moved, longer(5))
            await device.recreate()
            await dress()
            elsewhere.ip(f"link del {NAME}")
            with ask() as sock:
                await answered(sock, longer(10))
    finally:
        elsewhere.close()


async def test_it_outlives_its_killed_owner_and_the_next_start_takes_the_name(edge: Edge) -> None:
    """C-09: nothing goes with a killed supervisor; what it left is deleted, and its port is free again."""
    program = f"""
import anyio, os, signal
from tests.lab.stand import LOG, WORLD, config
from entrypoint.wireguard.open import open_device
from dataclasses import replace
async def main():
    async with open_device("kernel", replace(config(), name="{NAME}"), WORLD, LOG):
        os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main)
"""
    assert python(program).returncode == -signal.SIGKILL
    left = await WORLD.netlink.link(NAME)
    assert left is not None
    assert left.kind == "wireguard"
    async with kept([]):
        new = await WORLD.netlink.link(NAME)
        assert new is not None
        assert new.index != left.index
        with ask() as sock:
            await answered(sock, longer(5))
    assert await WORLD.netlink.link(NAME) is None


async def test_encrypted_packets_carry_the_mark_and_the_user_of_what_is_inside(edge: Edge) -> None:
    """A firewall that judges a user must let these pass first (killswitch.py)."""
    user = 4711
    every = ((user, 0x1000), (user, 0))
    rules = "\n".join(f"udp dport 2408 meta skuid {who} meta mark {mark} counter" for who, mark in every)
    chain = f"chain out {{ type filter hook output priority 0;\n{rules}\n}}"
    run("nft", "-f", "-", text=f"table inet seen {{ {chain}\n}}\n")

    def seen() -> list[int]:
        lines = (line for line in run("nft", "list", "table", "inet", "seen").splitlines() if "skuid" in line)
        return [int(line.split("packets ")[1].split()[0]) for line in lines]

    async with kept([]):
        # Of this thread alone; skuid is the file system uid at a socket's creation, while that is open.
        ctypes.CDLL(None).setfsuid(user)
        try:
            theirs = ask()
        finally:
            ctypes.CDLL(None).setfsuid(0)
        with theirs:
            # What waits for the handshake is taken from its socket: only the second has a user for certain.
            for _ in range(2):
                await answered(theirs, longer(5))
            await until(lambda: seen()[0] > 0, longer(2))
            assert seen()[1] == 0


async def greeted(device: Device) -> float:
    """Wait for the first handshake; return the seconds it took."""
    begun = time.monotonic()
    with anyio.fail_after(longer(10)):
        while not (await device.stats()).handshake:  # noqa: ASYNC110 - there is no event to wait for
            await anyio.sleep(0.01)
    return time.monotonic() - begun


async def test_its_keepalive_asks_at_up_and_again_only_after_5_s(edge: Edge, record: Record) -> None:
    """Without any traffic: replacing the peer starts a handshake at once, so the ladder need not wait."""
    async with kept([]) as device:
        at_once = await greeted(device)
    edge.end()
    async with kept([]) as device:
        edge.start()
        again = await greeted(device)
    record("kernel: first handshake", f"{at_once:.2f} s after up, {again:.2f} s when one was lost, emulated")
    assert at_once < 4 < again


async def test_another_address_of_the_uplink_heals_by_itself(edge: Edge, record: Record) -> None:
    async with kept([]):
        with ask() as sock:
            await answered(sock, longer(5))
            ip("address del 192.0.2.1/24 dev up0")
            ip("address add 192.0.2.9/24 dev up0")
            record("kernel: another uplink address", f"{await answered(sock, longer(5)):.2f} s, emulated")


async def test_a_cancelled_configuration_does_not_disturb_the_next(edge: Edge) -> None:
    """On a shared socket the next failing one would succeed, and the following good one fail."""
    async with kept([]) as device:
        good, missing = config(), replace(config(), name="missing")
        for moment in range(1, 12):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(device.configure, good)
                    for _ in range(moment):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()
            with pytest.raises(OSError, match=rf"Errno {errno.ENODEV}\b"):
                await WORLD.netlink.configure_wireguard(missing)
            await device.configure(good)
        with ask() as sock:
            await answered(sock, longer(5))
