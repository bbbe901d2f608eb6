import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from entrypoint.log import banner, configure, hide, print_block

log = logging.getLogger("ss-warp")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, handlers, levels = (
        logging.getLogger(),
        logging.getLogger().handlers[:],
        (logging.root.level, log.level),
    )
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    log.setLevel(levels[1])


def test_a_line_has_the_time_in_utc(stream: io.StringIO) -> None:
    configure("info", stream=stream)
    log.info("up")
    log.warning("%s is gone", "wg0")
    log.debug("unseen")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ up", first)
    assert second.endswith("Z warning: wg0 is gone")


def test_json_is_one_object_a_line(stream: io.StringIO) -> None:
    configure("debug", "json", stream)
    log.debug('a "quoted" line')
    try:
        raise OSError("no")
    except OSError:
        log.exception("failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert set(first) == {"time", "level", "message"}
    assert first["message"] == 'a "quoted" line'
    assert second["level"] == "error"
    assert "OSError: no" in second["error"]


def test_libraries_are_silent_below_warnings(stream: io.StringIO) -> None:
    configure("debug", stream=stream)
    logging.getLogger("httpx").info("HTTP Request: POST https://api")
    assert stream.getvalue() == ""
    logging.getLogger("asyncio").warning("slow")
    assert "warning: slow" in stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_registered_secrets_are_hidden_even_in_tracebacks(stream: io.StringIO, form: str) -> None:
    configure("info", "json" if form == "json" else "text", stream)
    hide("hunter2hunter2", "on")
    try:
        raise ValueError("bad key hunter2hunter2")
    except ValueError:
        log.exception("password hunter2hunter2 is on")
    assert "hunter2" not in stream.getvalue()
    assert "is on" in stream.getvalue(), "too short to be a secret"


def test_what_others_say_cannot_forge_lines(stream: io.StringIO) -> None:
    configure("info", stream=stream)
    log.info("the API says: %s", "\x1b[2Jok\r\x00")
    assert "\\x1b[2Jok\\x0d\\x00" in stream.getvalue()


def test_show_prints_at_every_level_and_keeps_json_one_line(stream: io.StringIO) -> None:
    configure("error", "json", stream)
    hide("hunter2hunter2")
    print_block("hunter2hunter2\nsecond", "json", stream)
    assert json.loads(stream.getvalue())["message"] == "hunter2hunter2\nsecond"
    plain = io.StringIO()
    print_block("a\nb", stream=plain)
    assert plain.getvalue() == "a\nb\n"


def test_the_banner_has_the_version() -> None:
    assert re.search(r"ss-warp \d+\.\d+\.\d+", banner()[0])
