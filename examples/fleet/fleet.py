"""Write one file for clients from many nodes, those that work first. Runs in ss-warp's image.

    python fleet.py nodes.json FOLDER

nodes.json is a list of {"name": …, "links": [ss://… of each user], "metrics": "http://…:9999/metrics"}.
FOLDER gets, for each user, NAME.json (SIP008), NAME.mihomo.yaml, NAME.sing-box.json and NAME.txt. A file
that would not change is left alone. The exit code is 1 if no node works: then nothing is written.
"""

import json
import os
import sys
import urllib.request
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_URL, uuid5

from shadowsocks.credentials import METHODS
from shadowsocks.links import Entry, link, write_for

TIMEOUT = 5.0
SLOWEST = 1e9


@dataclass(frozen=True, slots=True)
class Node:
    """A server: its entry for each user, and the seconds of a round trip, SLOWEST if it does not work."""

    name: str
    entries: Mapping[str, Entry]
    round_trip: float = SLOWEST

    @property
    def works(self) -> bool:
        """A request has just come back through its tunnel."""
        return self.round_trip < SLOWEST


def entry(text: str, name: str) -> tuple[str, Entry]:
    """Return the user that an `ss://` link is for, and the server, called `name`."""
    parts = urlsplit(text)
    userinfo, _, _ = parts.netloc.rpartition("@")
    decoded = unquote(userinfo)
    if ":" not in decoded:
        decoded = urlsafe_b64decode(decoded + "=" * (-len(decoded) % 4)).decode()
    method, _, password = decoded.partition(":")
    user = unquote(parts.fragment).removeprefix("ss-warp").removeprefix("-") or "all"
    return user, Entry(name, parts.hostname or "", parts.port or 8388, METHODS[method], password)


def look(url: str) -> float:
    """Return the seconds of a round trip through a node's tunnel; SLOWEST without a healthy answer."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - of the list of our nodes
            lines = answer.read().decode().splitlines()
    except (OSError, ValueError):
        return SLOWEST
    told = dict(line.rsplit(" ", 1) for line in lines if line and line[0] != "#")
    if float(told.get("ss_warp_healthy", 0)) != 1:
        return SLOWEST
    return float(told.get("ss_warp_round_trip_seconds", 1))


def gather(listed: Sequence[Mapping[str, object]]) -> list[Node]:
    """Ask all nodes at once; return them, the quickest first, those that do not work last."""

    def one(item: Mapping[str, object]) -> Node:
        name, links = str(item["name"]), item["links"]
        assert isinstance(links, list), f"{name}: links is a list"  # noqa: S101 - a clear word for a wrong file
        return Node(name, dict(entry(text, name) for text in links), look(str(item["metrics"])))

    with ThreadPoolExecutor(32) as pool:
        # Stable: nodes that do equally well keep their order, so that files do not change for nothing.
        return sorted(pool.map(one, listed), key=lambda node: round(node.round_trip, 1))


def sip008(entries: Sequence[Entry]) -> str:
    """Return the document that Shadowsocks clients update from an address."""
    servers = [
        {
            "id": str(uuid5(NAMESPACE_URL, f"{each.host}:{each.port}:{each.name}")),
            "remarks": each.name,
            "server": each.host,
            "server_port": each.port,
            "password": each.password,
            "method": each.method.name,
        }
        for each in entries
    ]
    return json.dumps({"version": 1, "servers": servers}, indent=1)


def documents(user: str, entries: Sequence[Entry]) -> dict[str, str]:
    """Return the files for one user, by name."""
    return {
        f"{user}.json": sip008(entries),
        f"{user}.mihomo.yaml": write_for("mihomo", entries),
        f"{user}.sing-box.json": write_for("sing-box", entries),
        f"{user}.txt": "\n".join(link(each) for each in entries),
    }


def write(file: Path, text: str) -> None:
    """Replace a file at once, if it changes; only its owner can read it."""
    if file.exists() and file.read_text() == text + "\n":
        return
    fresh = file.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text + "\n")
    fresh.replace(file)


def main() -> None:
    """Do it, once."""
    listed, folder = sys.argv[1:]
    nodes = gather(json.loads(Path(listed).read_text()))
    for node in nodes:
        print(f"{node.name}: {f'{1000 * node.round_trip:.0f} ms' if node.works else 'does not answer'}")
    if not any(node.works for node in nodes):
        sys.exit("no node works: nothing is written")
    for user in sorted({user for node in nodes for user in node.entries}):
        theirs = [node.entries[user] for node in nodes if user in node.entries]
        for name, text in documents(user, theirs).items():
            write(Path(folder) / name, text)


if __name__ == "__main__":
    main()
