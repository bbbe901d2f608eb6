"""The heartbeat file, as the health check reads it."""

import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.status import heartbeat
from entrypoint.status.heartbeat import find_problem, format_beat, healthcheck


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "malformed"),
        ("connected", "malformed"),
        ("connected x 30\n", "malformed"),
        (format_beat("healing", 100, 30, "a\nb"), "healing: a b"),
        (format_beat("starting", 100, 30, ""), "starting"),
        (format_beat("connected", 60, 30, ""), "no answered check for 40 s"),
        (format_beat("connected", 101, 30, ""), "no answered check"),
    ],
)
def test_what_is_no_sign_of_health(text: str, wrong: str) -> None:
    assert wrong in find_problem(text, 100)


def test_healthcheck_reads_the_file(tmp_path: Path) -> None:
    assert healthcheck(tmp_path)[0] == 1
    (tmp_path / heartbeat.HEARTBEAT_NAME).write_bytes(b"\xff")
    assert healthcheck(tmp_path)[0] == 1
    (tmp_path / heartbeat.HEARTBEAT_NAME).write_text(format_beat("connected", heartbeat.now(), 30, "fine"))
    assert healthcheck(tmp_path) == (0, "connected")


def test_healthcheck_imports_nothing_big() -> None:
    code = "import sys, entrypoint.status.heartbeat; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    big = {"anyio", "asyncio", "dataclasses", "httpx", "ipaddress", "json", "logging", "subprocess"}
    assert not big.intersection(loaded.split())
