"""Draw the README's pictures as SVG, each for a light and for a dark page.

The first run is drawn from docs/pictures/first-run.txt, which `make pictures` takes from a run of the
demo; the way of a packet is drawn from the table below.
"""

import re
from dataclasses import dataclass
from html import escape

FOLDER = "docs/pictures"
MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of a page; `name` ends the file's name."""

    name: str
    page: str
    frame: str
    box: str
    text: str
    faint: str
    good: str
    accent: str
    tunnel: str


PALETTES = (
    Palette("light", "#ffffff", "#d0d7de", "#f6f8fa", "#1f2328", "#59636e", "#1a7f37", "#0969da", "#bc4c00"),
    Palette("dark", "#0d1117", "#3d444d", "#151b23", "#f0f6fc", "#9198a1", "#3fb950", "#4493f8", "#f0883e"),
)

# ── The first run ─────────────────────────────────────────────────────────────────────────────────

TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ?")
SETTING = re.compile(r"^(  [A-Z][A-Z0-9_]+: .*|[A-Z][A-Za-z]+)$")
"""A setting, or the name of a group of them: a reader of the picture looks for what comes after."""
HALF_BLOCKS = " ▀▄█"
FONT, ADVANCE, LINE, MARGIN = 13, 7.83, 18, 18
"""Pixels: size of the font, width of a character, height of a line, margin of the window."""
MODULE = 3.4
"""Pixels of one module of the QR code."""


def shown(transcript: str) -> list[str]:
    """Return the lines of a first run that the picture shows: no times, no settings."""
    lines = (TIME.sub("", line) for line in transcript.splitlines())
    return [line for line in lines if not SETTING.match(line)]


def _is_code(line: str) -> bool:
    """Return whether a line is a row of the QR code, which draws two rows of modules in one."""
    return len(line.strip()) > 10 and set(line) <= set(HALF_BLOCKS)


def _dark_modules(rows: list[str], top: float) -> str:
    """Return the QR code: its characters are the light modules, so the dark ones are what they leave out."""
    odd = set(rows[-1]) == {"▀"}
    width, height = len(rows[0]) * MODULE, (2 * len(rows) - odd) * MODULE
    path = []
    for n, row in enumerate(rows):
        for half, marks in enumerate(("▀█",) if odd and row is rows[-1] else ("▀█", "▄█")):
            for run in re.finditer(r"0+", "".join("1" if mark in marks else "0" for mark in row)):
                x, y = MARGIN + run.start() * MODULE, top + (2 * n + half) * MODULE
                path.append(
                    f"M{x:.1f} {y:.1f}h{len(run[0]) * MODULE:.1f}v{MODULE}h-{len(run[0]) * MODULE:.1f}z"
                )
    return (
        f'<rect x="{MARGIN}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" fill="#ffffff"/>\n'
        f'<path d="{"".join(path)}" fill="#000000"/>'
    )


def first_run(lines: list[str], palette: Palette) -> str:
    """Return the picture of a terminal with these lines."""
    y, drawn = 52.0, []
    code = [line for line in lines if _is_code(line)]
    for line in lines:
        if _is_code(line):
            if line is code[0]:
                top = y - FONT
            y += 2 * MODULE
            continue
        fill = palette.text
        if set(line) == {"─"}:
            drawn.append(f'<path d="M{MARGIN} {y - 4:.0f}H{{right}}" stroke="{palette.frame}"/>')
        elif line.strip():
            if "warp=on" in line:
                fill = palette.good
            elif "ss://" in line or "https://" in line:
                fill = palette.accent
            drawn.append(
                f'<text x="{MARGIN}" y="{y:.0f}" fill="{fill}" xml:space="preserve">{escape(line)}</text>'
            )
        y += LINE
    columns = max(len(line) for line in lines if not _is_code(line))
    width, height = round(2 * MARGIN + columns * ADVANCE), round(y)
    right = width - MARGIN
    buttons = "".join(
        f'<circle cx="{20 + 18 * n}" cy="18" r="5.5" fill="{palette.frame}"/>' for n in range(3)
    )
    body = "\n".join(drawn).replace("{right}", str(right))
    return _svg(
        width,
        height,
        "The log of a first start: registered, connected, the link and its QR code",
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" fill="{palette.box}" '
        f'stroke="{palette.frame}"/>\n{buttons}\n'
        f'<g font-family="{MONOSPACE}" font-size="{FONT}">\n{body}\n</g>\n{_dark_modules(code, top)}',
    )


# ── The way of a packet ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Stop:
    """A place on the way: what it is called, its address, and what it sees."""

    name: str
    what: str
    address: str
    sees: tuple[str, str]


WAY = (
    Stop("your phone", "Shadowsocks client", "198.51.100.50", ("connects to", "203.0.113.7:8388")),
    Stop("your server", "ss-warp", "203.0.113.7", ("sees you at", "198.51.100.50")),
    Stop("Cloudflare WARP", "edge", "162.159.192.1", ("sees your server at", "203.0.113.7")),
    Stop("the site", "or app", "192.0.2.80", ("sees WARP at", "104.28.0.1")),
)
CABLES = (("Shadowsocks", "tcp + udp 8388"), ("WireGuard", "udp 2408"), ("as it is", "https, quic, dns"))
"""What runs between two stops."""
BOX, GAP, TOP = 156, 104, 30
"""Pixels: width of a stop, space between two, where the stops begin."""


def packet(palette: Palette) -> str:
    """Return the picture of a packet's way from the phone to the site."""
    width, height = 2 * MARGIN + len(WAY) * BOX + (len(WAY) - 1) * GAP, 262
    parts = []
    for n, stop in enumerate(WAY):
        x = MARGIN + n * (BOX + GAP)
        middle = x + BOX / 2
        stroke = palette.tunnel if stop.what == "ss-warp" else palette.frame
        parts += [
            f'<rect x="{x}" y="{TOP}" width="{BOX}" height="92" rx="10" fill="{palette.box}" '
            f'stroke="{stroke}" stroke-width="1.5"/>',
            _words(middle, TOP + 27, stop.name, palette.text, "15", "600"),
            _words(middle, TOP + 47, stop.what, palette.faint, "12.5"),
            _words(middle, TOP + 74, stop.address, palette.accent, "13", family=MONOSPACE),
            _words(middle, TOP + 120, stop.sees[0], palette.faint, "12.5"),
            _words(middle, TOP + 139, stop.sees[1], palette.text, "13", "600", MONOSPACE),
        ]
    for n, (name, detail) in enumerate(CABLES):
        x = MARGIN + (n + 1) * BOX + n * GAP
        inside = n < 2
        colour, weight = (palette.tunnel, 3) if inside else (palette.faint, 1.5)
        parts += [
            f'<path d="M{x + 6} {TOP + 46}h{GAP - 18}" stroke="{colour}" stroke-width="{weight}"/>',
            f'<path d="M{x + GAP - 14} {TOP + 40}l10 6l-10 6z" fill="{colour}"/>',
            _words(x + GAP / 2 - 2, TOP + 34, name, colour, "12", "600"),
            _words(x + GAP / 2 - 2, TOP + 64, detail, palette.faint, "10.5"),
        ]
    left, right = MARGIN + BOX + GAP, MARGIN + 2 * BOX + GAP
    parts += [
        f'<path d="M{left + BOX / 2} {TOP + 152}v18" stroke="{palette.faint}" stroke-dasharray="3 3"/>',
        f'<rect x="{left - 70}" y="{TOP + 172}" width="{right - left + 140}" height="46" rx="8" fill="none" '
        f'stroke="{palette.frame}" stroke-dasharray="4 3"/>',
        _words(left + BOX / 2, TOP + 191, "SSH and published ports of the server:", palette.faint, "12.5"),
        _words(left + BOX / 2, TOP + 209, "answered from 203.0.113.7, as before", palette.text, "12.5"),
        _words(
            right + 96 + (width - right - 96 - MARGIN) / 2,
            TOP + 191,
            "Tunnel down? Then nothing gets past your server:",
            palette.faint,
            "12.5",
        ),
        _words(
            right + 96 + (width - right - 96 - MARGIN) / 2,
            TOP + 209,
            "the firewall refuses what would leave in the clear",
            palette.text,
            "12.5",
        ),
    ]
    return _svg(
        width,
        height,
        "A packet goes from your phone to your server by Shadowsocks, to Cloudflare WARP by WireGuard, "
        "and on to the site, which sees WARP's address",
        f'<g font-family="{SANS}" text-anchor="middle">\n' + "\n".join(parts) + "\n</g>",
    )


def _words(x: float, y: float, text: str, fill: str, size: str, weight: str = "400", family: str = "") -> str:
    own = f' font-family="{family}"' if family else ""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{fill}" font-size="{size}" font-weight="{weight}"{own}>'
        f"{escape(text)}</text>"
    )


def _svg(width: int, height: int, title: str, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img">\n<title>{escape(title)}</title>\n{body}\n</svg>\n'
    )


def drawings(transcript: str) -> dict[str, str]:
    """Return every picture by its path; `transcript` is the log of a first run."""
    lines = shown(transcript)
    pictures = {}
    for palette in PALETTES:
        pictures[f"{FOLDER}/first-run-{palette.name}.svg"] = first_run(lines, palette)
        pictures[f"{FOLDER}/packet-{palette.name}.svg"] = packet(palette)
    return pictures
