"""docs/troubleshooting.md and docs/teams.md explain messages that the product really prints."""

import re

import pytest

from tests.unit.docs.pages import ROOT, read, section

CODE = "\n".join(
    re.sub(r"\"\n\s*f?\"", "", path.read_text()) for path in sorted((ROOT / "entrypoint").rglob("*.py"))
)
"""The source, with string literals that go on in the next line joined."""

MESSAGES = re.findall(
    r"^\| `([^`]+)` \|",
    section("Messages", read("docs/troubleshooting.md"))
    + section("When it does not work", read("docs/teams.md")),
    re.MULTILINE,
)


def printed(message: str) -> bool:
    """Return whether the source holds every part of `message`; `…` stands for what varies."""
    return all(part.strip() in CODE for part in message.split("…"))


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 20
    assert not printed("no product prints this … at all")


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_it_explains_exists(message: str) -> None:
    assert printed(message)
