"""The figures as bars, for a light and for a dark page. Pure."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import FIGURES, Figure
from bench.groups import SHARE
from bench.lanes import GO, GVISOR, OURS, SYSTEM
from examples.demo.pictures import FOLDER, PALETTES, SANS, Palette

SHOWN = (
    "download, 1 stream",
    "upload, 1 stream",
    f"upload, 1 stream, {SHARE} of a processor",
    "processor: download, 1 stream",
    "processor: upload, 1 stream",
    "connections",
    "datagrams",
    "latency p99 beside a download",
    "memory, fresh",
    "memory, 9,920 idle connections",
)
CONTESTANTS = (OURS, GO, SYSTEM, GVISOR)
WIDTH, LABEL, VALUE, BAR, GAP, HEAD, MARGIN = 760, 190, 90, 14, 5, 34, 16
"""Pixels: of the picture, of names and values beside the bars, a bar, between bars, a heading, around."""


def drawings(results: Mapping[str, Any]) -> dict[Path, str]:
    """Return the pictures by path."""
    return {Path(FOLDER) / f"figures-{one.name}.svg": drawn(results, one) for one in PALETTES}


def drawn(results: Mapping[str, Any], palette: Palette) -> str:
    """Return the picture: what was measured of SHOWN, a bar for each median."""
    parts: list[str] = []
    y = MARGIN
    for group, figures in FIGURES.items():
        samples = results.get(group, {}).get("samples", {})
        for figure in figures:
            if figure.name in SHOWN and figure.name in samples:
                lines, y = bars(figure, samples[figure.name], palette, y)
                parts += lines
    height = y + MARGIN - GAP
    title = "ss-warp beside sing-box, and with wireguard-go as its engine"
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="{SANS}" font-size="13">\n<title>{title}</title>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="{palette.page}"/>\n{body}\n</svg>\n'
    )


def bars(
    figure: Figure, found: Mapping[str, list[float]], palette: Palette, top: int
) -> tuple[list[str], int]:
    """Return the lines of one figure that begins at `top`, and where the next one does."""
    better = "more" if figure.more_is_better else "less"
    heading = escape(f"{figure.name}: {figure.unit}, {better} is better")
    lines = [f'<text x="{MARGIN}" y="{top + 15}" fill="{palette.text}" font-weight="600">{heading}</text>']
    y = top + HEAD - BAR + GAP
    values = {name: median(found[name]) for name in CONTESTANTS if name in found}
    room = WIDTH - LABEL - VALUE - 2 * MARGIN
    for name, value in values.items():
        length = max(1, round(room * value / max(values.values())))
        fill = palette.accent if name == OURS else palette.frame
        x, base = MARGIN + LABEL, y + BAR - 3
        lines += [
            f'<text x="{x - 8}" y="{base}" fill="{palette.faint}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{x}" y="{y}" width="{length}" height="{BAR}" rx="2" fill="{fill}"/>',
            f'<text x="{x + length + 6}" y="{base}" fill="{palette.text}">{value:,.{figure.digits}f}</text>',
        ]
        y += BAR + GAP
    return lines, y + BAR
