"""Shared by all layers; the measured figures are shown at the end of the output."""

from collections.abc import Callable
from typing import Protocol

import pytest
from hypothesis import settings

# How long an example takes says what else the machine does, not whether it is right.
# Every run tries the same examples.
settings.register_profile("unhurried", deadline=None, derandomize=True)
settings.load_profile("unhurried")

type Record = Callable[[str, object], None]

PREFIX = "figure "


class Reporter(Protocol):
    """What we use of pytest's terminal reporter."""

    stats: dict[str, list[pytest.TestReport]]

    def section(self, title: str) -> None:
        """Begin a section."""

    def write_line(self, line: str) -> None:
        """Write a line."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Record:
    """Note a measured figure; it is shown in the summary, also from other processes (pytest-xdist)."""
    return lambda name, figure: record_property(PREFIX + name, figure)


def pytest_terminal_summary(terminalreporter: Reporter) -> None:
    """Print every figure."""
    reports = [one for same in terminalreporter.stats.values() for one in same]
    figures = [
        f"{one.nodeid.rpartition('/')[2].partition('::')[0]}: {name.removeprefix(PREFIX)}: {value}"
        for one in reports
        if isinstance(one, pytest.TestReport) and one.when == "call"
        for name, value in one.user_properties
        if name.startswith(PREFIX)
    ]
    if figures:
        terminalreporter.section("figures")
        for line in sorted(figures):
            terminalreporter.write_line(line)
