"""The table of machines in docs/security.md is whole, and its machines can share one internet."""

from tests.lab.machines.machine import QUESTIONS
from tests.lab.machines.page import table
from tests.lab.machines.rows import MACHINES


def test_every_machine_and_question_is_in_it() -> None:
    assert all(f"**{one.name}**" in table() for one in MACHINES)
    assert all(f"*{one}*:" in table() for one in QUESTIONS)


def test_no_two_machines_have_one_name_or_address() -> None:
    assert len({one.name for one in MACHINES}) == len(MACHINES)
    public = [door.address for one in MACHINES for door in one.doors if not door.visitor]
    assert len({*public}) == len(public)
