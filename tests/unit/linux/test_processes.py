"""Real child processes: started clean, watched, ended, restarted."""

import asyncio
import os
import signal
import socket
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest

from entrypoint.errors import DefectError
from entrypoint.linux.processes import UNLESS_ORPHANED, SystemProcesses, supervise
from entrypoint.linux.run import run
from entrypoint.linux.world import Program
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio


def shell(script: str, **options: object) -> Program:
    return Program(name="sh", argv=["sh", "-c", script], **options)  # type: ignore[arg-type]


async def output(program: Program) -> list[str]:
    async with SystemProcesses().running(program) as child:
        lines = [line async for line in child.lines()]
        await child.wait()
    return lines


async def test_a_child_gets_its_files_and_nothing_of_our_environment() -> None:
    os.environ["SHADOWSOCKS_PASSWORD"] = "canary-in-our-environment"
    try:
        lines = await output(
            Program(
                name="sh",
                argv=["sh", "-c", "cat $0; env", "{config}"],
                environment={"MODE": "test"},
                files={"config": b"first line\n"},
            )
        )
    finally:
        del os.environ["SHADOWSOCKS_PASSWORD"]
    assert lines[0] == "first line"
    assert "MODE=test" in lines
    assert not [line for line in lines if "canary" in line]


async def test_a_child_runs_as_its_own_user_without_capabilities_and_reads_its_file() -> None:
    lines = await output(
        Program(
            name="sh",
            argv=[
                "sh",
                "-c",
                "cat $0; id -u; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status",
                "{config}",
            ],
            uid=58388,
            files={"config": b"secret\n"},
        )
    )
    assert lines == ["secret", "58388", "58388", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"]


async def test_leaving_ends_a_child_that_ignores_sigterm() -> None:
    async with SystemProcesses().running(shell("trap '' TERM; echo up; while :; do sleep 1; done")) as child:
        async for line in child.lines():
            assert line == "up"
            break
        pid = child.pid
    assert not Path(f"/proc/{pid}").exists()


async def test_a_reader_of_an_ended_process_reads_its_end() -> None:
    """Its own child keeps the pipe open: the reader hears of the end by nothing but our closing it."""
    lines = []
    running = SystemProcesses().running(shell("sleep 60 & echo $!; exec sleep 60"))
    async with anyio.create_task_group() as tasks, running as child:
        told = anyio.Event()

        async def read() -> None:
            async for line in child.lines():
                lines.append(line)
                told.set()

        tasks.start_soon(read)
        await told.wait()
    os.kill(int(lines[0]), signal.SIGKILL)
    assert len(lines) == 1


async def test_one_who_dies_in_the_middle_of_a_conversation_is_an_error_like_a_closed_door(
    tmp_path: Path,
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "door"))
        listener.listen()

        def hang_up() -> None:
            listener.accept()[0].close()  # with the question unread: the other end gets a reset

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, hang_up)
            with pytest.raises(ConnectionError):
                await SystemProcesses().exchange(tmp_path / "door", "question\n" * 10_000)


async def test_a_child_dies_with_its_supervisor(tmp_path: Path) -> None:
    """The supervisor here is a process of its own, killed with SIGKILL."""
    script = (
        "import anyio, sys\n"
        "from entrypoint.linux.processes import SystemProcesses\n"
        "from entrypoint.linux.world import Program\n"
        "async def main():\n"
        "    async with SystemProcesses().running(Program('sleep', ['sleep', '600'])) as child:\n"
        "        print(child.pid, flush=True)\n"
        "        await anyio.sleep_forever()\n"
        "anyio.run(main)\n"
    )
    process = await anyio.open_process(["python", "-c", script], env=dict(os.environ))
    assert process.stdout is not None
    grandchild = int((await process.stdout.receive()).decode())
    with anyio.fail_after(5):
        while Path(f"/proc/{grandchild}/comm").read_text() != "sleep\n":  # setpriv first asks for the leash
            await anyio.lowlevel.checkpoint()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await process.aclose()
    with anyio.fail_after(5):
        while _alive(grandchild):
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("died", [False, True])
async def test_a_child_whose_supervisor_died_before_it_was_leashed_never_runs(*, died: bool) -> None:
    """The signal comes to those only who have asked for it."""
    argv = [*UNLESS_ORPHANED, str(os.getpid() + died), "echo", "it ran", "$0"]
    result = await anyio.run_process(argv, check=False)
    assert result.stdout.decode() == ("" if died else "it ran $0\n")


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_program_that_was_ready_is_restarted_at_once_a_broken_one_with_backoff(
    tmp_path: Path,
) -> None:
    clock, ends, starts = FakeClock(), [], tmp_path / "starts"

    async def on_end(sentence: str) -> None:
        ends.append(sentence)
        if len(ends) == 5:
            raise EnoughError

    program = shell(f"echo x >>{starts}; [ $(wc -l <{starts}) -le 2 ] && echo ready; exit 3")
    with pytest.raises(EnoughError):
        await supervise(
            SystemProcesses(), program, clock, on_line=lambda line: line == "ready", on_end=on_end
        )
    assert ["in" in sentence.split() for sentence in ends] == [False, False, True, True, True]
    pauses = [float(sentence.split()[-2]) for sentence in ends[2:]]
    assert all(pause <= 0.2 * 2**number for number, pause in enumerate(pauses)), pauses


class EnoughError(Exception):
    pass


async def test_a_refused_configuration_is_our_defect_not_a_loop() -> None:
    async def on_end(sentence: str) -> None:
        raise AssertionError(sentence)

    with pytest.raises(DefectError, match="rejected its configuration"):
        await supervise(
            SystemProcesses(), shell("exit 78"), FakeClock(), on_line=lambda _: False, on_end=on_end
        )


async def test_short_programs_report_failure_in_one_line() -> None:
    assert run(["cat"], "hello") == "hello"
    with pytest.raises(OSError, match="sh: no such luck"):
        run(["sh", "-c", "echo no such luck >&2; echo second line >&2; exit 1"])
    with pytest.raises(FileNotFoundError):
        run(["no-such-program"])


async def test_only_who_reacts_to_a_client_that_ends_answers() -> None:
    address, ask = "127.0.0.1", SystemProcesses().is_responsive
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]

        def react() -> None:
            client, _ = server.accept()
            with client:
                assert client.recv(1) == b""

        reacting = asyncio.create_task(asyncio.to_thread(react))
        assert await ask(ip_address(address), port, limit=5)
        await reacting
        assert not await ask(ip_address(address), port, limit=0.05), (
            "the kernel accepts, the program does not"
        )
    assert not await ask(ip_address(address), port, limit=5), "no listener"
    assert not await ask(ip_address("192.0.2.1"), port, limit=5), "not ours: nothing is sent"
