"""The log: one line per event, times in UTC, as text or JSON; and the one block that shows secrets."""

import json
import logging
import sys
import time
from typing import Literal, TextIO

from entrypoint import __version__

_hidden: set[str] = set()


# The last net: a secret that slips into a message is masked in every line.
def hide(*secrets: str) -> None:
    """Mask these in every later log line, as a second defence against logging them at all."""
    _hidden.update(secret for secret in secrets if len(secret) >= 8)


def _clean(text: str) -> str:
    for secret in _hidden:
        text = text.replace(secret, "(hidden)")
    # Messages contain text from outside: neutralize its line breaks, colours and cursor movements.
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class TextLines(logging.Formatter):
    """`2026-11-24T03:28:07Z warning: no answer through wg0`; the level info is omitted."""

    def format(self, record: logging.LogRecord) -> str:
        word = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{_utc(record.created)} {word}{_clean(super().format(record))}"


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, message, and error for a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "message": _clean(record.getMessage()),
        }
        if record.exc_info:
            line["error"] = _clean(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def configure(
    level: str, form: Literal["text", "json"] = "text", stream: TextIO | None = None
) -> logging.Handler:
    """Log to `stream` (standard output) from `level` on; libraries only from warning on."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.getLogger().handlers[:] = [handler]
    # Below that, libraries log destinations and headers.
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("ss-warp").setLevel(level.upper())
    return handler


def banner() -> list[str]:
    return [f"ss-warp {__version__}: Shadowsocks in, Cloudflare WARP out"]


def print_block(text: str, form: Literal["text", "json"] = "text", stream: TextIO | None = None) -> None:
    """Print a block unmasked at any log level; in a JSON log, as one object."""
    if form == "json":
        text = json.dumps({"time": _utc(time.time()), "level": "info", "message": text}, ensure_ascii=False)
    print(text, file=stream or sys.stdout, flush=True)
