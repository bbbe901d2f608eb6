"""`make bench-machine`: kernel WireGuard beside wireguard-go, in pairs; emulated, hence an indication."""

from pathlib import Path
from statistics import median

import pytest

from bench.groups import throughput
from bench.lanes import KERNEL, USERSPACE
from bench.report import paired, spread
from tests.lab.conftest import Record

ROUNDS = 5
SECONDS = 5.0


@pytest.mark.vm
@pytest.mark.timeout(1800)
def test_kernel_beside_userspace(tmp_path: Path, record: Record) -> None:
    found = throughput(tmp_path, ROUNDS, SECONDS, (KERNEL, USERSPACE), abreast=(1,))
    for figure, values in found.items():
        kernel, userspace = values[KERNEL], values[USERSPACE]
        unit = "s/GB" if figure.startswith("processor") else "Mbit/s"
        record(
            f"{figure} ({unit})",
            f"kernel {spread(kernel, 1)}, wireguard-go {spread(userspace, 1)}, "
            f"kernel ÷ wireguard-go {spread(paired(kernel, userspace), 2)}",
        )
        assert median(kernel) > 0
