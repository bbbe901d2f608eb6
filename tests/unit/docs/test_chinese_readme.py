"""README.zh-CN.md is the same page as README.md: the same commands, pictures, tables and headings."""

import re
from collections.abc import Callable

import pytest

from tests.unit.docs.pages import code_blocks, read

ENGLISH, CHINESE = read("README.md"), read("README.zh-CN.md")


def commands(page: str) -> list[str]:
    """Return the code blocks without their comments, which are translated."""
    return [re.sub(r"[ \t]+#.*", "", block) for block in code_blocks(page)]


def headings(page: str) -> list[int]:
    """Return the level of each heading, in order."""
    return [len(marks) for marks in re.findall(r"^(#+) ", page, re.MULTILINE)]


def tables(page: str) -> list[int]:
    """Return the number of columns of each table row, in order."""
    return [row.count("|") for row in re.findall(r"^\|.*\|$", page, re.MULTILINE)]


def names(page: str) -> list[str]:
    """Return what stands in code marks outside the blocks: commands, settings and values."""
    for block in code_blocks(page):
        page = page.replace(block, "")
    return sorted(re.findall(r"`([^`\n]+)`", page))


def pictures(page: str) -> list[str]:
    return re.findall(r"(?:src|srcset)=\"([^\"]+)\"", page)


def links(page: str) -> list[str]:
    return sorted(
        target
        for target in re.findall(r"\]\(([^)#]+)\)", page)
        if target not in ("README.md", "README.zh-CN.md")
    )


@pytest.mark.parametrize("part", [commands, headings, tables, names, pictures, links])
def test_both_have_the_same(part: Callable[[str], list[object]]) -> None:
    assert part(CHINESE) == part(ENGLISH)
    assert part(ENGLISH)


def test_it_is_chinese() -> None:
    assert len(re.findall(r"[\u4e00-\u9fff]", CHINESE)) > 1000
    assert not re.search(r"[\u4e00-\u9fff]", ENGLISH.replace("简体中文", ""))


def test_each_leads_to_the_other() -> None:
    assert "(README.zh-CN.md)" in ENGLISH
    assert "(README.md)" in CHINESE
