"""docs/security.md: every case of the catalogue is shown by a test that exists, or says why none can run."""

import ast
import re
from functools import cache

from tests.unit.docs.pages import read

PAGE = read("docs/security.md")
CASES = [
    f"{letter}-{number:02}"
    for letter, last in (("L", 28), ("K", 17), ("C", 20), ("D", 14))
    for number in range(1, last + 1)
]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def functions(path: str) -> set[str]:
    """Return the names of a file's tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(read(path), path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_case_has_one_row_with_tests_or_a_reason() -> None:
    rows = re.findall(r"^\| ([LKCD]-\d\d) \| [^|]+ \| (.+) \|$", PAGE, re.MULTILINE)
    assert [case for case, _ in rows] == CASES
    bare = [case for case, cell in rows if not NAMED.search(cell) and len(cell.split()) <= 3]
    assert not bare, "neither a test nor a reason why none can run here"


def test_every_test_it_names_exists() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) > len(CASES)
    assert not [f"{path}::{name}" for path, name in named if name not in functions(path)]
