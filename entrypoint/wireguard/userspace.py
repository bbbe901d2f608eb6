"""WireGuard's cross-platform configuration protocol (https://www.wireguard.com/xplatform/). Pure."""

import errno
import logging
import os
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from entrypoint.linux.kernel_objects import DeviceConfig, Link, Stats
from entrypoint.linux.proc import ENGINE
from entrypoint.linux.world import Program, Running, World
from entrypoint.retry import after, retrying
from entrypoint.routing.reconcile import delete_link
from entrypoint.wireguard.device import Implementation, Trouble

LARGEST_ERRNO = 4095
UAPI_GET = "get=1\n\n"
NUMBER = re.compile(r"-?[0-9]{1,20}", re.ASCII)


def encode_uapi(config: DeviceConfig) -> str:
    """Return the UAPI request that replaces the whole configuration with `config`."""
    lines = [
        "set=1",
        f"private_key={_hex(config.private_key)}",
        f"fwmark={config.mark}",
        *([f"listen_port={config.listen_port}"] if config.listen_port else []),
        "replace_peers=true",
        f"public_key={_hex(config.peer_public_key)}",
        f"endpoint={config.endpoint}",
        f"persistent_keepalive_interval={config.keepalive}",
        "replace_allowed_ips=true",
        *(f"allowed_ip={network}" for network in config.allowed_ips),
    ]
    return "\n".join(lines) + "\n\n"


def parse_uapi(answer: str) -> Stats:
    """Return the counters in the answer to UAPI_GET, zeros without a peer. Raises OSError."""
    numbers = _numbers(answer)
    return Stats(
        handshake=numbers["last_handshake_time_sec"] + numbers["last_handshake_time_nsec"] / 1e9,
        rx_bytes=numbers["rx_bytes"],
        tx_bytes=numbers["tx_bytes"],
    )


def check_uapi(answer: str) -> None:
    """Raise OSError unless the answer says errno=0; some engines send negative numbers."""
    _numbers(answer)


def _numbers(answer: str) -> Counter[str]:
    """Return the fields that hold a number; with one peer no key but allowed_ip occurs twice."""
    fields = (line.partition("=") for line in answer.splitlines())
    numbers = Counter({key: int(value) for key, _, value in fields if NUMBER.fullmatch(value)})
    if "errno" not in numbers:
        raise ConnectionAbortedError(f"{ENGINE} closed the connection in the middle of an answer")
    if number := min(abs(numbers["errno"]), LARGEST_ERRNO):
        raise OSError(number, f"{ENGINE} rejected the configuration: {os.strerror(number)}")
    return numbers


def _hex(key: str) -> str:
    return b64decode(key, validate=True).hex()


START_TIMEOUT = 3.0
"""Seconds that the engine gets to open its socket, or a predecessor to remove its own."""

POLL_INTERVAL = 0.01
"""Seconds between two looks for the socket; nothing announces it."""

RESTART_PAUSE = 0.2
LONGEST_RESTART_PAUSE = 5.0
"""Seconds, at first and at last, before restarting an engine that does not come up."""


class UserspaceDevice:
    """A TUN and its engine (see device.Device). `keep` restarts an engine that died."""

    implementation: Implementation = "userspace"

    def __init__(self, config: DeviceConfig, world: World, log: logging.Logger, sockets: Path) -> None:
        self._config = config
        self._world = world
        self._log = log
        self._socket = sockets / f"{config.name}.sock"
        self._engine: Running | None = None
        self._running = AsyncExitStack()
        self._started = anyio.Event()
        # Its holder may stop and start the engine; the others wait instead of repairing it twice.
        self._lock = anyio.Lock()

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._config.name

    async def configure(self, config: DeviceConfig) -> None:
        """Set key, mark and peer, replacing the old peer."""
        async with self._lock:
            before, self._config = self._config, config
            # The engine reads the guise when it starts; junk works only where it comes first on a flow.
            if config.guise != before.guise or self._engine is None:
                await self.end()
                await self._start()
            else:
                await self._set()

    async def recreate(self) -> None:
        """Recreate TUN and engine."""
        async with self._lock:
            await self.end()
            await delete_link(self._world.netlink, self.name)
            await self._world.netlink.add(Link(self.name, "tun"))
            await self._start()

    async def keep(self, report: Callable[[Trouble], None]) -> None:
        """Read the engine's log, and restart the engine when it dies."""
        while True:
            started, engine = self._started, self._engine
            if engine is not None:
                async for line in engine.lines():
                    self._log.debug("%s: %s", ENGINE, line)
                await engine.wait()
                if self._engine is engine:
                    await self._mend(engine, report)
            await started.wait()

    async def stats(self) -> Stats:
        """Read the counters."""
        return parse_uapi(await self._world.processes.exchange(self._socket, UAPI_GET))

    async def end(self) -> None:
        """Stop the engine, if one is running; the TUN stays."""
        self._engine = None
        running, self._running = self._running, AsyncExitStack()
        await running.aclose()

    async def _mend(self, dead: Running, report: Callable[[Trouble], None]) -> None:
        """Restart the engine; without an interface that is left to `recreate`."""
        level = logging.WARNING

        def announce(error: BaseException, pause: float) -> None:
            nonlocal level
            self._log.log(level, "cannot restart %s: %s; retrying in %.1f s", ENGINE, error, pause)
            level = logging.DEBUG  # said once

        async for attempt in retrying(
            self._world.clock.sleep,
            first=RESTART_PAUSE,
            longest=LONGEST_RESTART_PAUSE,
            demanded=after(OSError),
            before_pause=announce,
        ):
            with attempt:
                async with self._lock:
                    if self._engine not in (dead, None):
                        return
                    await self.end()
                    if await self._world.netlink.link(self.name) is None:
                        report("gone")
                        return
                    await self._start()
                    report("restarted")

    async def _start(self) -> None:
        """Start and configure the engine on the TUN."""
        await self._unused()
        if await self._world.netlink.link(self.name) is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        try:
            engine = await self._running.enter_async_context(self._world.processes.running(self._program()))
            await self._configured(engine)
        except OSError:
            await self.end()
            raise
        # Only now may `keep` read its lines: two readers would steal them from each other.
        self._engine = engine
        self._started.set()
        self._started = anyio.Event()

    def _program(self) -> Program:
        return Program(
            name=ENGINE,
            argv=[ENGINE, "-f", self.name],
            environment={"WG_RESERVED": self._config.guise.octets, "WG_JUNK": self._config.guise.junk},
        )

    async def _unused(self) -> None:
        """Wait until an older engine of this name is gone: no second one can attach to its TUN."""
        deadline = self._world.clock.monotonic() + START_TIMEOUT
        while self._world.clock.monotonic() < deadline:
            try:
                await self._world.processes.exchange(self._socket, UAPI_GET)
            except OSError:
                return
            await self._world.clock.sleep(POLL_INTERVAL)

    async def _configured(self, engine: Running) -> None:
        """Configure a starting engine once it listens. Raises OSError, also if it ends instead."""
        clock = self._world.clock
        deadline = clock.monotonic() + START_TIMEOUT
        trouble: OSError | None = TimeoutError(f"no socket after {START_TIMEOUT:g} s")
        ended = False

        async def watch() -> None:
            nonlocal ended
            await engine.wait()
            ended = True
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            while clock.monotonic() < deadline:
                try:
                    await self._set()
                    trouble = None
                except (FileNotFoundError, ConnectionRefusedError):
                    await clock.sleep(POLL_INTERVAL)
                    continue
                except OSError as error:
                    trouble = error
                break
            tasks.cancel_scope.cancel()
        if ended:
            said = [line async for line in engine.lines()]
            raise ChildProcessError(f"the engine exited at once: {said[-1] if said else 'no output'}")
        if trouble is not None:
            raise trouble

    async def _set(self) -> None:
        check_uapi(await self._world.processes.exchange(self._socket, encode_uapi(self._config)))
