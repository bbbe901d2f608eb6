"""docs/routing.md shows what `ss-warp explain` prints: each output is compared, and none is contradicted."""

import pytest

from tests.lab.routing_page import PAGE, asked, regenerated, rewritten

pytestmark = pytest.mark.lab


def test_the_story_is_told_with_what_the_product_prints() -> None:
    page = PAGE.read_text()
    assert regenerated() == page, "run `make docs`"
    assert "SSH keeps working" in page
    assert "the kernel itself says" not in page
    assert "not understood" not in page


def test_a_stale_output_is_noticed() -> None:
    page = PAGE.read_text()
    said = dict.fromkeys(asked(page), "something else\n")
    assert len(said) > 8
    assert rewritten(page, said).count("something else") == len(said)
    assert rewritten(rewritten(page, said), said) == rewritten(page, said)
