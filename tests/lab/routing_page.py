"""docs/routing.md tells a story with what `ss-warp explain` prints; here it is printed in the lab.

`make docs` runs this module: it prints the page with fresh outputs.
"""

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lab.host_topology import host_lab
from tests.lab.hosts import on_host
from tests.lab.product import Product
from tests.lab.topology import Lab

PAGE = Path(__file__).parents[2] / "docs/routing.md"
BLOCK = re.compile(r"^<!-- (\w+): ([^\n]+) -->\n(?:```console\n.*?^```\n)?", re.DOTALL | re.MULTILINE)


def rewritten(page: str, said: dict[tuple[str, str], str]) -> str:
    """Return the page with each marker followed by what was said for it."""

    def block(match: re.Match[str]) -> str:
        state, words = match.groups()
        return f"<!-- {state}: {words} -->\n```console\n$ ss-warp explain {words}\n{said[state, words]}```\n"

    return BLOCK.sub(block, page)


def asked(page: str) -> list[tuple[str, str]]:
    """Return the markers: in which state of the server, and explain's words."""
    return [(match[1], match[2]) for match in BLOCK.finditer(page)]


def explained(lab: Lab, directory: Path, page: str) -> dict[tuple[str, str], str]:
    """Bring the server into each state, and ask what the page asks in it."""
    said = {}
    for state in dict.fromkeys(state for state, _ in asked(page)):
        with _server(lab, directory / state, state) as product:
            environment = {"WARP_STATE_DIR": str(product.state), "NETWORK": "host"}
            for words in (words for where, words in asked(page) if where == state):
                argv = [sys.executable, "-m", "entrypoint", "explain", *words.split()]
                said[state, words] = lab.run("H", argv, environment=environment).stdout
    return said


@contextmanager
def _server(lab: Lab, state: Path, mode: str) -> Iterator[Product]:
    with on_host(lab, state, "full" if mode == "dead" else mode) as product:
        product.serving()
        if mode == "dead":
            # Nothing repairs it while the supervisor is stopped.
            os.kill(product.pid, signal.SIGSTOP)
            lab.run("H", ["ip", "link", "del", "wg0"])
        try:
            yield product
        finally:
            os.kill(product.pid, signal.SIGCONT)


def regenerated() -> str:
    """Build the lab and return the page as it should be."""
    page = PAGE.read_text()
    with TemporaryDirectory() as directory, host_lab(Path(directory) / "cloudflare", containers=False) as lab:
        return rewritten(page, explained(lab, Path(directory), page))


if __name__ == "__main__":
    sys.stdout.write(regenerated())
