"""The README's pictures: drawn from a real first run, whose lines are those that the product prints today."""

import ast
import re
from xml.etree import ElementTree

import pytest

from examples.demo.pictures import drawings, shown
from shadowsocks.links import qr
from tests.unit.docs.pages import ROOT, TRANSCRIPT, read, written

PLACEHOLDER = re.compile(r"%[-\d.]*[sdf]|%%")


def shape(node: ast.AST) -> str | None:
    """Return the pattern of what a string literal, an f-string or a %-format can become."""
    match node:
        case ast.JoinedStr(values=values):
            return "".join(shape(value) or ".*" for value in values)
        case ast.Constant(value=str(text)):
            return ".*".join(re.escape(part) for part in PLACEHOLDER.split(text))
    return None


def shapes() -> list[re.Pattern[str]]:
    """Return the pattern of every string in the product that has enough letters of its own to tell."""
    found = set[str]()
    for folder in ("entrypoint", "shadowsocks"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= {pattern for node in ast.walk(ast.parse(path.read_text())) if (pattern := shape(node))}
    return [re.compile(one) for one in sorted(found) if len(re.sub(r"\.\*|\W", "", one)) >= 4]


def unknown(lines: list[str]) -> list[str]:
    """Return the lines that no string of the product can become; fields, frames and the QR code aside."""
    known = shapes()
    return [
        line
        for line in lines
        if re.search(r"[a-z]{3}", line)
        and not line.startswith("  ")
        and not any(one.fullmatch(line) for one in known)
    ]


def test_every_line_of_the_first_run_is_one_that_the_product_prints() -> None:
    lines = shown(read(TRANSCRIPT))
    assert any("warp=on" in line for line in lines)
    assert unknown(lines) == [], "run `make pictures`"
    assert unknown(["a sentence that no product prints"])


def test_the_link_and_its_code_belong_together() -> None:
    transcript = read(TRANSCRIPT)
    [link] = re.findall(r"ss://\S+", transcript)
    assert qr(link) in transcript


def test_the_pictures_are_drawn_from_it() -> None:
    for path in drawings(read(TRANSCRIPT)):
        assert read(path) == written()[path], f"{path}: run `make docs`"


@pytest.mark.parametrize("path", drawings(read(TRANSCRIPT)))
def test_each_is_a_picture_that_says_what_it_shows(path: str) -> None:
    root = ElementTree.fromstring(read(path))  # noqa: S314 - our own file
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text
    assert len(root.findall(".//{http://www.w3.org/2000/svg}text")) > 10
