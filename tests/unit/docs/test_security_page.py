"""docs/security.md: every case of the catalogue is shown by a test that carries its number, or says why."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/security.md").read_text()
CASES = [
    f"{letter}-{number:02}"
    for letter, last in (("L", 28), ("K", 17), ("C", 20), ("D", 14))
    for number in range(1, last + 1)
]
ROWS = {
    case: cell.strip()
    for case, cell in re.findall(r"^\| ([LKCD]-\d\d) \| [^|]+ \| (.+) \|$", PAGE, re.MULTILINE)
}
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def functions(path: str) -> dict[str, str]:
    """Return each test function's docstring."""
    tree = ast.parse((ROOT / path).read_text(), path)
    return {
        node.name: ast.get_docstring(node) or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def carries(case: str, name: str, docstring: str) -> bool:
    """Say whether a test has the number in its name (`l_04`, `l04`) or its docstring (`L-04`)."""
    letter, _, number = case.lower().partition("-")
    return bool(re.search(rf"_{letter}_?{number}(?!\d)", name)) or case in docstring


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_a_row_with_tests_that_carry_it_or_a_reason(case: str) -> None:
    cell = ROWS[case]
    for path, name in NAMED.findall(cell):
        assert carries(case, name, functions(path)[name]), f"{path}::{name} does not carry {case}"
    reason = len(cell.split()) > 3 and "not yet" not in cell
    assert NAMED.search(cell) or reason, "neither a test nor a reason why none can run here"


def test_no_case_is_there_twice_or_unknown() -> None:
    assert re.findall(r"^\| ([LKCD]-\d\d) \|", PAGE, re.MULTILINE) == CASES


def test_every_test_it_names_exists() -> None:
    named = NAMED.findall(PAGE)
    assert named
    assert not [f"{path}::{name}" for path, name in named if name not in functions(path)]


def test_a_number_is_found_where_it_is_and_nowhere_else() -> None:
    assert carries("K-07", "test_k07_listed", "")
    assert carries("C-16", "test_c_16_killed", "")
    assert carries("L-04", "test_a_family", "Refused at once (L-04).")
    assert not carries("L-04", "test_l05_l14_closed", "")
    assert not carries("C-01", "test_c_012", "L-01")
