"""The real engine on a persistent TUN (the stand is drawn in stand.py)."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from entrypoint.linux.netlink import read_wireguard
from entrypoint.linux.proc import read_traffic
from entrypoint.wireguard.device import Trouble
from entrypoint.wireguard.open import check_available
from tests.lab.stand import (
    LEASH,
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
    until,
)

__all__ = ["edge"]  # a fixture

pytestmark = [pytest.mark.lab, pytest.mark.anyio]


async def test_it_carries_packets_and_leaves_nothing(edge: Edge) -> None:
    await check_available("auto", WORLD.netlink)
    async with kept([]) as device:
        assert device.implementation == "userspace"
        with ask() as sock:
            await answered(sock)
        stats = await device.stats()
        assert stats.rx_bytes > 0
        assert abs(stats.handshake - time.time()) < 10
        traffic = read_traffic(NAME)
        assert traffic is not None
        assert traffic.rx > 0
        assert len(engines()) == 1
    assert await WORLD.netlink.link(NAME) is None
    assert engines() == []
    assert not Path(f"/var/run/wireguard/{NAME}.sock").exists()


async def test_killed_again_and_again_it_carries_packets_within_two_seconds(edge: Edge) -> None:
    reports: list[Trouble] = []
    took = []
    async with kept(reports):
        before = await WORLD.netlink.link(NAME)
        with ask() as sock:
            await answered(sock)
            for round_ in range(5):
                (pid,) = engines()
                os.kill(pid, signal.SIGKILL)
                took.append(await answered(sock))
                await until(lambda: len(reports) == round_ + 1)  # noqa: B023 - awaited here
        assert await WORLD.netlink.link(NAME) == before
    print("traffic again after", [f"{seconds:.3f}" for seconds in took])
    assert max(took) <= 2
    assert reports == ["restarted"] * 5


async def test_a_panic_ends_it_and_the_next_one_takes_over(edge: Edge, tmp_path: Path) -> None:
    """A real one: the kernel seems to hand over more messages than there is room for."""
    reports: list[Trouble] = []
    said = tmp_path / "strace"
    async with kept(reports):
        before = await WORLD.netlink.link(NAME)
        with ask() as sock:
            await answered(sock)
            (pid,) = engines()
            strace = subprocess.Popen(  # noqa: ASYNC220 - it says when it is ready
                [*LEASH, "strace", "-o", said, "-p", str(pid), "-e", "inject=recvmmsg:retval=99"],
                stderr=subprocess.PIPE,
            )
            assert strace.stderr is not None
            with strace.stderr as stderr:
                assert b"attached" in stderr.readline()
                sock.send(b"")
                ended = await until(lambda: pid not in engines())
                strace.wait(5)
            took = await answered(sock)
            await until(lambda: reports == ["restarted"])
        assert await WORLD.netlink.link(NAME) == before
    assert "exited with 70" in said.read_text()
    print(f"ended after {ended:.3f} s, traffic again {took:.3f} s later")
    assert ended <= 1
    assert took <= 2


async def test_deleted_it_is_reported_at_once_and_recreated(edge: Edge) -> None:
    reports: list[Trouble] = []
    async with kept(reports) as device:
        with ask() as sock:
            await answered(sock)
        ip(f"link del {NAME}")
        noticed = await until(lambda: reports == ["gone"])
        begun = time.monotonic()
        await device.recreate()
        await dress()
        with ask() as sock:
            await answered(sock)
        print(f"gone noticed after {noticed:.3f} s, recreated in {time.monotonic() - begun:.3f} s")
        assert noticed < 1.5
        assert time.monotonic() - begun < 2
        (pid,) = engines()
        os.kill(pid, signal.SIGKILL)
        with ask() as sock:
            assert await answered(sock) < 2


async def test_a_new_peer_mends_a_session_that_the_edge_forgot(edge: Edge) -> None:
    async with kept([]) as device:
        with ask() as sock:
            await answered(sock)
            edge.start()
            with pytest.raises(TimeoutError):
                await answered(sock, 1)
            begun = time.monotonic()
            await device.configure(config())
            await answered(sock)
            print(f"session mended in {time.monotonic() - begun:.3f} s")
            assert time.monotonic() - begun < 1


async def test_a_leftover_engine_of_an_earlier_run_is_ended(edge: Edge) -> None:
    ip(f"tuntap add dev {NAME} mode tun vnet_hdr")
    old = subprocess.Popen(  # noqa: ASYNC220 - no other task waits
        [*LEASH, "ss-warp-wireguard", "-f", NAME], env=os.environ | {"WG_PROCESS_FOREGROUND": "1"}
    )
    await until(Path(f"/var/run/wireguard/{NAME}.sock").exists)
    async with kept([]):
        assert old.wait(5) == 0
        with ask() as sock:
            await answered(sock)
        assert len(engines()) == 1


async def test_a_kernel_without_wireguard_is_told_by_errno(caplog: pytest.LogCaptureFixture) -> None:
    if Path("/sys/module/wireguard").exists():
        pytest.skip("this kernel has WireGuard")
    with pytest.raises(FileNotFoundError):
        await read_wireguard("wg0")
    assert caplog.records == []
