"""FakeProcesses: programs that behave like the engine and ssserver, without a process.

The engine attaches itself to a TUN of the fake netlink, answers on its UAPI socket, ends when its link goes
and can be killed; then its socket is left behind. ssserver says where it
listens, as the configuration it was handed tells it.
"""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint

from entrypoint.addresses import Address
from entrypoint.errors import PlatformError
from entrypoint.linux.world import Clock, Netlink, Program, Running

EINVAL = -22


class FakeChild:
    """A running program (see ports.Running)."""

    def __init__(self, program: Program, pid: int) -> None:
        self.program = program
        self._pid = pid
        self.code: int | None = None
        self.said: list[str] = []
        self._news = anyio.Event()

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def alive(self) -> bool:
        return self.code is None

    def say(self, line: str) -> None:
        self.said.append(line)
        self._wake()

    def end(self, code: int) -> None:
        if self.code is None:
            self.code = code
            self._wake()

    def kill(self) -> None:
        """SIGKILL."""
        self.end(-9)

    async def begin(self) -> None:
        """What it does on its start."""

    async def wait(self) -> int:
        while self.code is None:
            await self._changed()
        return self.code

    async def lines(self) -> AsyncIterator[str]:
        while True:
            while self.said:
                yield self.said.pop(0)
            if self.code is not None:
                return
            await self._changed()

    async def _changed(self) -> None:
        await self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()


class FakeEngine(FakeChild):
    """ss-warp-wireguard on one TUN: `settings` is its last configuration, every `set` is in `requests`."""

    def __init__(self, program: Program, pid: int, netlink: Netlink) -> None:
        super().__init__(program, pid)
        self.name = program.argv[-1]
        self.netlink = netlink
        self.requests: list[str] = []
        self.settings: dict[str, str] = {}
        self.handshake = 0
        self.rx_bytes = 0
        self.tx_bytes = 0

    async def begin(self) -> None:
        if await self.netlink.link(self.name) is None:
            self.say(f"ss-warp-wireguard: cannot attach to {self.name}: No such device (os error 19)")
            self.end(1)

    async def _changed(self) -> None:
        """Wait for news, and end when the link goes."""

        async def follow() -> None:
            async with self.netlink.changes() as changes:
                while await self.netlink.link(self.name) is not None:
                    await anext(changes)
            self.end(0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await super()._changed()
            tasks.cancel_scope.cancel()

    def answer(self, request: str) -> str:
        lines = request.rstrip("\n").split("\n")
        if lines[0] == "get=1":
            return "\n".join(
                [
                    *(f"{key}={value}" for key, value in self.settings.items()),
                    f"last_handshake_time_sec={self.handshake}",
                    "last_handshake_time_nsec=0",
                    f"tx_bytes={self.tx_bytes}",
                    f"rx_bytes={self.rx_bytes}",
                    "errno=0\n\n",
                ]
            )
        self.requests.append(request)
        settings = dict(line.partition("=")[::2] for line in lines[1:])
        if len(settings.get("private_key", "")) != 64 or len(settings.get("public_key", "")) != 64:
            return f"errno={EINVAL}\n\n"
        self.settings = settings
        self.handshake = 0
        return "errno=0\n\n"

    @property
    def private_key(self) -> str:
        """The key it has, base64."""
        return b64encode(bytes.fromhex(self.settings["private_key"])).decode()


class FakeSsserver(FakeChild):
    """ssserver: says where it listens, and reacts to clients unless it hangs."""

    hangs = False

    async def begin(self) -> None:
        for content in self.program.files.values():
            try:
                config = json.loads(content)
            except ValueError:
                continue
            for server in config["servers"]:
                host = server["server"]
                at = f"{f'[{host}]' if ':' in host else host}:{server['server_port']}"
                for kind in ("tcp", "udp"):
                    if kind in config["mode"]:
                        self.say(f"INFO shadowsocks {kind} server listening on {at}, inbound address {at}")


class FakeProcesses:
    """The door to programs. `refuse` names programs that end at once, with this as their last words.

    `fail_at` maps the number of a start or conversation, counted from 1, to the error it meets instead.
    """

    def __init__(self, netlink: Netlink, clock: Clock) -> None:
        self.netlink = netlink
        self.clock = clock
        self.children: list[FakeChild] = []
        self.refuse: dict[str, str] = {}
        self.refuse_code = 1
        self.fail_at: dict[int, Exception] = {}
        self.count = 0

    def engine(self, name: str = "wg0") -> FakeEngine | None:
        """The engine that is alive on this device."""
        alive = [c for c in self.children if isinstance(c, FakeEngine) and c.alive and c.name == name]
        return alive[-1] if alive else None

    def ssservers(self) -> list["FakeSsserver"]:
        """Every ssserver there was, the last one last."""
        return [child for child in self.children if isinstance(child, FakeSsserver)]

    def alive(self) -> list[str]:
        return [child.program.name for child in self.children if child.alive]

    @asynccontextmanager
    async def running(self, program: Program) -> AsyncIterator[Running]:
        self._counted()
        child = self._child(program)
        self.children.append(child)
        try:
            if program.name in self.refuse:
                child.say(self.refuse[program.name])
                child.end(self.refuse_code)
            else:
                await child.begin()
            yield child
        finally:
            child.end(0)

    def _child(self, program: Program) -> FakeChild:
        pid = 100 + len(self.children)
        match Path(program.argv[0]).name:
            case "ss-warp-wireguard":
                return FakeEngine(program, pid, self.netlink)
            case "ssserver":
                return FakeSsserver(program, pid)
        raise PlatformError(f"there is no program {program.argv[0]}")

    def _counted(self) -> None:
        self.count += 1
        if error := self.fail_at.get(self.count):
            raise error

    async def exchange(self, socket: Path, request: str) -> str:
        await checkpoint()
        self._counted()
        name = socket.name.removesuffix(".sock")
        engine = self.engine(name)
        if engine is None:
            was_killed = any(
                isinstance(c, FakeEngine) and c.name == name and c.code == -9 for c in self.children
            )
            raise ConnectionRefusedError if was_killed else FileNotFoundError(str(socket))
        return engine.answer(request)

    async def is_responsive(self, address: Address, port: int, *, limit: float) -> bool:
        await checkpoint()
        if not (server := next((child for child in self.ssservers() if child.alive), None)):
            return False  # refused
        if server.hangs:
            await self.clock.sleep(limit)
        return not server.hangs
