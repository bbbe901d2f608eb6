"""`make bench-machine`: kernel WireGuard beside userspace, in pairs; emulated, hence an indication."""

from pathlib import Path

import pytest

from bench.groups import throughput
from bench.lanes import ENVIRONMENTS, USERSPACE
from bench.report import paired, spread
from tests.conftest import Record

ROUNDS = 5
SECONDS = 5.0


@pytest.mark.vm
@pytest.mark.timeout(1800)
def test_kernel_beside_userspace(tmp_path: Path, record: Record) -> None:
    found = throughput(tmp_path, ROUNDS, SECONDS, tuple(ENVIRONMENTS), abreast=(1,))
    for figure, values in found.items():
        unit = "s/GB" if figure.startswith("processor") else "Mbit/s"
        for name, measured in values.items():
            ratio = spread(paired(measured, values[USERSPACE]), 2)
            record(f"{figure}, {name}", f"{spread(measured, 1)} {unit}, ÷ {USERSPACE} {ratio}")
