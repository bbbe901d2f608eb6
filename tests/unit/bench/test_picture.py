"""The bars: drawn from the measured values, for both kinds of page."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.figures import FIGURES
from bench.lanes import GO, OURS, SYSTEM
from bench.picture import SHOWN, bars, drawings
from examples.demo.pictures import PALETTES

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"
SPEED = FIGURES["throughput"][0]


def test_they_are_drawn_from_the_results() -> None:
    pictures = drawings(json.loads((ROOT / "bench/results.json").read_text()))
    assert len(pictures) == 2
    for path, text in pictures.items():
        assert (ROOT / path).read_text() == text, f"{path}: run `make bench`"
        root = ElementTree.fromstring(text)  # noqa: S314 - our own file
        assert root.findtext(f"{SVG}title")


def test_what_is_shown_is_measured() -> None:
    assert set(SHOWN) <= {figure.name for figures in FIGURES.values() for figure in figures}


def test_a_bar_is_as_long_as_its_value() -> None:
    found = {OURS: [300.0, 100.0, 200.0], SYSTEM: [100.0, 100.0, 100.0]}
    lines, end = bars(SPEED, found, PALETTES[0], 0)
    widths = [
        int(line.partition('width="')[2].partition('"')[0]) for line in lines if line.startswith("<rect")
    ]
    assert widths[0] == pytest.approx(2 * widths[1], abs=1)
    assert end > bars(SPEED, {OURS: [1.0]}, PALETTES[0], 0)[1]
    assert GO not in "".join(lines), "not measured"
