"""What the README says of the code is what the code says.

`make docs` runs this module: it prints the README with its generated parts written anew.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint import errors
from entrypoint.settings import VARIABLES, reference_table
from entrypoint.status.states import mermaid
from tests.image.compose import composed

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
GENERATED: dict[str, Callable[[], str]] = {
    "settings": reference_table,
    "states": lambda: f"```mermaid\n{mermaid()}\n```\n",
}


def regenerated(text: str) -> str:
    """Return `text` with everything between its markers written anew."""
    for name, generate in GENERATED.items():
        begin, end = f"<!-- {name}: written by `make docs` -->\n", f"<!-- /{name} -->\n"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        assert found, f"no marker for {name}"
        assert closed, f"{name} is not closed"
        text = f"{before}{begin}{generate()}{end}{after}"
    return text


def test_generated_parts_are_those_of_the_code() -> None:
    assert regenerated(README) == README, "run `make docs`"


def test_a_stale_part_is_noticed() -> None:
    assert regenerated(README.replace("| `LOG_LEVEL` |", "| `LOG_LEVELS` |")) == regenerated(README)
    assert README.replace("| `LOG_LEVEL` |", "| `LOG_LEVELS` |") != README


def section(title: str, page: str = README) -> str:
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


TEAMS = (ROOT / "docs/teams.md").read_text()
MESSAGES = re.findall(
    r"^\| `([^`]+)` \|",
    section("When something is wrong") + section("When it does not work", TEAMS),
    re.MULTILINE,
)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_it_explains_exists(message: str) -> None:
    """`…` stands for what differs from case to case."""
    code = "\n".join(path.read_text() for path in (ROOT / "entrypoint").rglob("*.py"))
    for part in message.split("…"):
        assert part.strip() in code


def test_exit_codes_are_those_of_the_errors() -> None:
    named = {
        int(code)
        for code in re.findall(r"(?:^|· |: )(\d\d?) ", section("How it lives").partition("Exit codes")[2])
    }
    classes: list[type[errors.Error]] = [errors.Error, *errors.Error.__subclasses__()]
    assert named <= {0, *(one.exit_code for one in classes)}
    assert {64, 74, 75, 77, 78} <= named


def test_settings_it_mentions_exist() -> None:
    prose = re.sub(r"<!-- settings.*<!-- /settings -->", "", README, flags=re.DOTALL)
    mentioned = set(
        re.findall(r"\b((?:SHADOWSOCKS|WARP|FIREWALL|WIREGUARD|HEALTH|DNS|LOG)_[A-Z_]+)\b", prose)
    )
    assert mentioned
    assert {name.removesuffix("_FILE") if name not in VARIABLES else name for name in mentioned} <= set(
        VARIABLES
    )


def test_compose_and_env_example_name_real_settings() -> None:
    assert set(composed()["environment"]) <= set(VARIABLES)
    example = (ROOT / ".env.example").read_text()
    offered = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    assert offered <= set(composed()["environment"]), "else they would do nothing"
    assert not re.search(r"^[A-Z]", example, re.MULTILINE), "all commented out"


def test_links_within_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(
        re.findall(
            r"`?\bmake ([a-z-]+)\b`?", "\n".join(re.findall(r"`make [a-z-]+`|\$ make [a-z-]+", README))
        )
    ):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


if __name__ == "__main__":
    sys.stdout.write(regenerated(README))
