"""The README's pictures: drawn from a real first run."""

import re
from xml.etree import ElementTree

import pytest

from examples.demo.pictures import drawings
from shadowsocks.links import qr
from tests.unit.docs.pages import TRANSCRIPT, read, written


def test_the_link_and_its_code_belong_together() -> None:
    transcript = read(TRANSCRIPT)
    links = re.findall(r"ss://\S+", transcript)
    assert qr(links[0]) in transcript


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
