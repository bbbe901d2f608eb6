"""nftables as far as we use it: tables, replaced by transactions that happen whole or not at all."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import anyio.lowlevel

from entrypoint.linux.kernel_objects import Visit
from tests.fakes.bursts import Bursts


class FakeNft:
    """See ports.Nft. `fail_at` holds the numbers of the loads, counted from 1, that are refused."""

    def __init__(self, *, denied: bool = False, lacks: str = "") -> None:
        self.denied = denied
        self.lacks = lacks
        """Words that this kernel's nftables does not know, as one regular expression."""
        self.fail_at: set[int] = set()
        self.count = 0
        self.tables: dict[str, str] = {}
        self.leads: Callable[[Visit], str | None] = lambda _: None
        """By which interface the answer to a visit leaves."""
        self._told = Bursts()

    def __str__(self) -> str:
        return "\n".join(f"table {name} {{\n{body}}}" for name, body in sorted(self.tables.items()))

    async def load(self, text: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.count += 1
        if self.denied or self.count in self.fail_at:
            raise OSError("nft: Operation not permitted")
        if self.lacks and re.search(self.lacks, text):
            raise OSError("nft: Could not process rule: No such file or directory")
        tables = dict(self.tables)
        for command, name, body in _statements(text):
            match command:
                case "delete table":
                    if name not in tables:
                        raise OSError(f"nft: no such table: {name}")
                    del tables[name]
                case "create table" if name in tables:
                    raise OSError(f"nft: table exists: {name}")
                case "flush ruleset":
                    raise OSError("nft: other programs' tables would be lost")
                case _:
                    tables[name] = tables.get(name, "") + body
        self.tables = tables
        self._told.tell()
        await anyio.lowlevel.checkpoint()

    async def listing(self, family: str, table: str) -> str:
        await anyio.lowlevel.checkpoint()
        return self.tables.get(f"{family} {table}", "")

    async def visit(self, visits: Sequence[Visit], expected: Mapping[Visit, str]) -> Mapping[Visit, str]:
        await anyio.lowlevel.checkpoint()
        if self.denied:
            raise OSError("nft: Operation not permitted")
        ways = {one: self.leads(one) for one in visits}
        return {one: device for one, device in ways.items() if device}

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        return self._told.subscribed()

    def flush(self) -> None:
        """Another program flushes the whole ruleset."""
        self.tables = {}
        self._told.tell()


STATEMENT = re.compile(
    r"\s*(?:(flush ruleset)|((?:add |create |delete )?table) (\w+ [\w-]+))[ \t]*([{\n;]|$)"
)


def _statements(text: str) -> list[tuple[str, str, str]]:
    """Split a file into (command, table, body). Raises OSError for what cannot be read."""
    found = []
    at = 0
    while text[at:].strip():
        match = STATEMENT.match(text, at)
        if not match:
            raise OSError(f"nft: syntax error at {text[at : at + 40]!r}")
        at = match.end()
        body = ""
        if match[4] == "{":
            end = _closing(text, at)
            body, at = text[at:end].lstrip("\n"), end + 1
        found.append((match[1] or match[2], match[3] or "", body))
    return found


def _closing(text: str, at: int) -> int:
    depth = 1
    for position in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise OSError("nft: syntax error, unexpected end of file")
