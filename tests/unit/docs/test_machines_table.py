"""The table of machines in docs/security.md is whole."""

from tests.lab.machines.machine import QUESTIONS
from tests.lab.machines.page import table
from tests.lab.machines.rows import MACHINES


def test_every_machine_and_question_is_in_it() -> None:
    assert all(f"**{one.name}**" in table() for one in MACHINES)
    assert all(f"*{one}*:" in table() for one in QUESTIONS)


def test_no_two_machines_have_one_name() -> None:
    assert len({one.name for one in MACHINES}) == len(MACHINES)
