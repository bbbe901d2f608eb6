"""The table of machines in docs/security.md: what test_machines.py asserts of each machine, in each mode."""

from collections.abc import Iterator
from itertools import groupby

from tests.lab.machines.machine import QUESTIONS, Machine
from tests.lab.machines.rows import MACHINES

SIGNS = {"yes": "✓", "warned": "warned", "refused": "refused"}


def table() -> str:
    """Return the table, and what its columns mean."""
    head = ["Machine", "Mode", *QUESTIONS]
    lines = [head, ["---"] * len(head), *(row for one in MACHINES for row in rows(one))]
    legend = "\n".join(f"- *{name}*: {what}" for name, what in QUESTIONS.items())
    return legend + "\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def rows(machine: Machine) -> Iterator[list[str]]:
    """Yield a row for all modes with the same verdicts."""
    for verdicts, modes in groupby(machine.modes, machine.verdicts):
        signs = dict.fromkeys(SIGNS, "skipped") if machine.needs else SIGNS
        cells = (signs[verdicts[one]] if one in verdicts else "" for one in QUESTIONS)
        yield [f"**{machine.name}**: {machine.shape}", ", ".join(modes), *cells]
