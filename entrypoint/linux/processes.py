"""Run long-lived child processes: start them without secrets, watch them, and end them in order."""

import errno
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from entrypoint.errors import DefectError, PlatformError
from entrypoint.linux.run import ENVIRONMENT
from entrypoint.linux.sockets import Address, await_reaction
from entrypoint.linux.world import Clock, Processes, Program, Running
from entrypoint.retry import after, retrying

GRACE = 1.5
"""Seconds between SIGTERM and SIGKILL."""

LEASH = ("setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--")
"""Every child runs under this: the kernel kills it when the supervisor dies, however that happens."""

UNLESS_ORPHANED = ("sh", "-c", 'test "$PPID" = "$0" && exec "$@"')
"""Comes next, with the supervisor's process id: it may have died before setpriv took effect."""

EXCHANGE_TIMEOUT = 5.0
"""Seconds that an exchange on a Unix socket may take."""


class Child:
    """A running program (see world.Running)."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait until it ends; return the exit code, negative for a signal."""
        return await self._process.wait()

    async def lines(self) -> AsyncIterator[str]:
        """Yield its output line by line until it ends. Read it, or a full pipe stops the program."""
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        rest = ""
        # Ending the program closes the pipe, perhaps before its last lines are read: an end like any other.
        with suppress(anyio.ClosedResourceError):
            async for text in TextReceiveStream(self._process.stdout, errors="replace"):
                *whole, rest = (rest + text).split("\n")
                for line in whole:
                    yield line
        if rest:
            yield rest


class SystemProcesses:
    """The door to real processes (see world.Processes)."""

    @asynccontextmanager
    async def running(self, program: Program) -> AsyncIterator[Running]:
        """Start `program` in its own session; end and reap it on leaving."""
        with _memory_files(program) as files:
            # Secrets travel in sealed memory files: no argument list, environment or disk shows them.
            argv = [word.format_map(files) if files else word for word in program.argv]
            try:
                process = await anyio.open_process(
                    [*LEASH, *UNLESS_ORPHANED, str(os.getpid()), *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=ENVIRONMENT | dict(program.environment),
                    # A session of its own: a signal to our process group must not end children before their
                    # turn.
                    start_new_session=True,
                    pass_fds=[int(Path(path).name) for path in files.values()],
                    user=program.uid,
                    group=program.uid,
                    extra_groups=None if program.uid is None else [],
                )
            except PermissionError as error:
                raise PlatformError(
                    f"cannot start {program.name} as user {program.uid}: {error.strerror}",
                    "add cap_add: [SETUID, SETGID]",
                ) from error
        try:
            yield Child(process)
        finally:
            with anyio.CancelScope(shield=True):
                await _end_process(process)

    async def exchange(self, socket: Path, request: str) -> str:
        """Send `request` to a Unix stream socket; return the answer up to its empty line."""
        answer = b""
        try:
            with anyio.fail_after(EXCHANGE_TIMEOUT):
                async with await anyio.connect_unix(socket) as stream:
                    await stream.send(request.encode())
                    while not answer.endswith(b"\n\n"):
                        answer += await stream.receive()
        except anyio.EndOfStream:
            pass
        except anyio.BrokenResourceError as error:  # it died meanwhile: the same as nothing listening
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from error
        return answer.decode(errors="replace")

    async def is_responsive(self, address: Address, port: int, *, limit: float) -> bool:
        """Return whether the server on our `address` reacts to a client that closes without sending."""
        try:
            with anyio.fail_after(limit):
                await await_reaction(address, port)
        except OSError:
            return False
        return True


@contextmanager
def _memory_files(program: Program) -> Iterator[dict[str, str]]:
    """Create a sealed memory file for each of the program's files; yield name → path for the child."""
    with ExitStack() as stack:
        paths = {}
        for name, content in program.files.items():
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            stack.callback(os.close, descriptor)
            os.write(descriptor, content)
            # Sealed, so that a child of another user can read but never change it.
            fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
            paths[name] = f"/proc/self/fd/{descriptor}"
        yield paths


async def _end_process(process: Process) -> None:
    """Send SIGTERM, after a grace period SIGKILL; always reap."""
    if process.returncode is None:
        with anyio.move_on_after(GRACE):
            _signal(process, signal.SIGTERM)
            await process.wait()
    if process.returncode is None:
        # A hung child may not keep the stop from ending: 1.5 s here, within 3 s for each undo and 10 s in
        # compose.yaml.
        _signal(process, signal.SIGKILL)
    await process.aclose()


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise PlatformError("cannot end a child of another user", "add cap_add: [KILL]") from error


BACKOFF_FIRST = 0.2
BACKOFF_LAST = 30.0
CONFIGURATION_FAULTS = (64, 78)
"""Exit codes (sysexits) for a wrong command line or configuration."""


async def supervise(
    processes: Processes,
    program: Program,
    clock: Clock,
    *,
    on_line: Callable[[str], bool],
    on_end: Callable[[str], Awaitable[None]],
) -> None:
    """Keep `program` running; restart it with exponential backoff.

    `on_line` gets each line it prints and returns True when that line shows the program ready; a
    program that had been ready is restarted at once, and the backoff starts over. `on_end` gets one
    sentence per end. Raises DefectError when the program refuses the configuration we gave it.
    """

    async def live() -> tuple[bool, str]:
        """Run the program once; return whether it became ready, and how it ended."""
        ready = False
        try:
            async with processes.running(program) as child:
                async for line in child.lines():
                    ready |= on_line(line)
                code = await child.wait()
        except OSError as error:  # no memory or no process left: that passes
            return ready, f"cannot run {program.name}: {error.strerror or error}"
        # Restarting would not help: the configuration is ours, so this is a bug.
        if code in CONFIGURATION_FAULTS and not ready:
            raise DefectError(f"{program.name} rejected its configuration (exit code {code})")
        how = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ready, f"{program.name} {how}"

    async def announce(error: BaseException, pause: float) -> None:
        await on_end(f"{error}, restarting in {pause:.1f} s")

    while True:
        backoff = retrying(
            clock.sleep,
            first=BACKOFF_FIRST,
            longest=BACKOFF_LAST,
            demanded=after(_NeverReadyError),
            before_pause=announce,
        )
        async for attempt in backoff:
            with attempt:
                ready, how = await live()
                if not ready:
                    raise _NeverReadyError(how)
        await on_end(f"{how}, restarting")


class _NeverReadyError(Exception):
    """The program ended before it was ready."""
