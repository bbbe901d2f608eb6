"""The pages for readers, and the parts of them that are generated from the code.

`make docs` runs this module: it writes every generated page as a tar to standard output.
"""

import ast
import io
import re
import sys
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from entrypoint.health.diagnosis import Cause
from entrypoint.settings import VARIABLES, reference_table
from entrypoint.status.metrics import METRICS
from entrypoint.status.report import FIELDS
from entrypoint.status.states import mermaid
from examples.demo.pictures import drawings
from tests.lab.machines.page import table

ROOT = Path(__file__).parents[3]
TRANSCRIPT = "docs/pictures/first-run.txt"
FOR_READERS = (
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "AGENTS.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*/README.md")),
)


def read(path: str) -> str:
    return (ROOT / path).read_text()


@cache
def floors() -> str:
    """Return the list of floors that test_repository.py holds the imports against, one floor a line."""
    assignments = {
        node.targets[0].id: node.value
        for node in ast.parse(read("tests/unit/test_repository.py")).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    listed = ast.literal_eval(assignments["FLOORS"]).split(" | ")
    return "```\n" + "\n".join(listed) + "\n```\n"


def compose_settings(page: str) -> str:
    """Return the lines of a compose file that pass on what it does not set by hand; secrets as files too."""
    names = [one for name, var in VARIABLES.items() for one in (name, f"{name}_FILE")[: 1 + var.secret]]
    by_hand = re.findall(r"^      ([A-Z_]+):", read(page).partition("# settings:")[0], re.MULTILINE)
    return "".join(f"      {name}: ${{{name}:-}}\n" for name in names if name not in by_hand)


def env_example() -> str:
    """Return a comment and an example for each variable that .env can set."""
    entries = [
        f"# {one.text}; default: {one.default or one.default_text}\n"
        f"#{name}={one.example.partition(' `')[0]}\n"
        if "`" not in one.example
        else f"# {one.text}, e.g. {one.example}; default: {one.default_text}\n#{name}=\n"
        for name, one in VARIABLES.items()
        if name != "NETWORK"
    ]
    return "\n".join(entries)


def rows(head: str, *columns: tuple[str, ...]) -> str:
    """Return a table."""
    count = head.count("|") + 1
    lines = [head, " | ".join(["---"] * count), *(" | ".join(column) for column in columns)]
    return "".join(f"| {line} |\n" for line in lines)


def status_fields() -> str:
    return rows("Field | What it is", *((f"`{one.path}`", one.text) for one in FIELDS))


def metrics() -> str:
    named = [(f"`{one.name}{'_total' * (one.kind == 'counter')}`", one.kind, one.help) for one in METRICS]
    return rows("Metric | Kind | What it is", *named)


def causes() -> str:
    kinds = [(f"`{one.name.lower().replace('_', '-')}`", one.value) for one in Cause]
    return rows("`cause.kind` | What to do", *kinds)


GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "compose.yaml": {"settings": lambda: compose_settings("compose.yaml")},
    "examples/host/compose.yaml": {"settings": lambda: compose_settings("examples/host/compose.yaml")},
    "examples/pod/ss-warp.yaml": {"settings": lambda: compose_settings("examples/pod/ss-warp.yaml")},
    ".env.example": {"settings": env_example},
    "docs/settings.md": {"settings": reference_table},
    "docs/status.md": {"fields": status_fields, "metrics": metrics, "causes": causes},
    "docs/security.md": {"machines": table},
    "docs/architecture.md": {"floors": floors, "states": lambda: f"```mermaid\n{mermaid()}\n```\n"},
}
"""Page → name of a marked part → what stands between its markers."""


def regenerated(page: str, text: str) -> str:
    """Return `text` of a page with everything between its markers replaced by what the code says."""
    opening, closing = ("<!-- ", " -->") if page.endswith(".md") else ("# ", "")
    for name, generate in GENERATED[page].items():
        begin = f"{opening}{name}: written by `make docs`{closing}\n"
        end = f"{'      ' * page.endswith('.yaml')}{opening}/{name}{closing}\n"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        assert found, f"{page} has no marker for {name}"
        assert closed, f"{page}: {name} is not closed"
        text = f"{before}{begin}{generate()}{end}{after}"
    return text


def section(title: str, page: str) -> str:
    """Return what stands under a second-level heading."""
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def code_blocks(page: str) -> list[str]:
    """Return the fenced blocks, fences included."""
    return re.findall(r"^ *```.*?^ *```$", page, re.DOTALL | re.MULTILINE)


def written() -> dict[str, str]:
    """Return every generated file of the documentation, by path."""
    pages = {page: regenerated(page, read(page)) for page in GENERATED}
    return pages | drawings(read(TRANSCRIPT))


def main() -> None:
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for path, text in written().items():
            content = text.encode()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
