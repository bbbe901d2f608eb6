"""Each machine of the table, each question, each mode; every refusal is explained."""

from pathlib import Path

import pytest

from tests.lab.machines.asked import ask
from tests.lab.machines.built import at
from tests.lab.machines.machine import Machine, Mode
from tests.lab.machines.rows import MACHINES
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab

CASES = [(machine, mode) for machine in MACHINES for mode in machine.modes]


@pytest.mark.parametrize(("machine", "mode"), CASES, ids=[f"{one.name}-{mode}" for one, mode in CASES])
def test_every_machine_is_asked_the_same(
    surroundings: Lab, volume: Path, machine: Machine, mode: Mode
) -> None:
    for kind in machine.needs:
        made = surroundings.run(at("R"), ["ip", "link", "add", "try0", "type", *kind.split()], check=False)
        if made.returncode:
            pytest.skip(f"this kernel has no {kind.split()[0]} links: {made.stderr.strip()}")
        surroundings.run(at("R"), ["ip", "link", "del", "try0"])
    answered = ask(surroundings, machine, mode, volume)
    assert answered.verdicts == machine.verdicts(mode), answered.told()
