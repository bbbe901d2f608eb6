"""`ss-warp explain` beside a running chain: the rules walked and the kernel asked agree."""

import json
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import Record
from tests.lab.product import Product
from tests.lab.topology import HOST, Lab

pytestmark = pytest.mark.lab

CASES = [
    (["1.1.1.1"], "wg0", 32764),
    (["2606:4700:4700::1111"], "wg0", 32764),
    ([str(HOST[0]), "198.51.100.50"], "eth0", 18),
    ([str(HOST[1]), "2001:db8:c::50"], "eth0", 18),
    (["--mark", "0x1000", "162.159.192.1"], "eth0", 16),
    (["--ssserver", "1.1.1.1"], "wg0", 32764),
    (["203.0.113.1"], "wg0", 32764),
    (["127.0.0.1"], "lo", 0),
]


@pytest.fixture(scope="module")
def product(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with Product(lab, tmp_path_factory.mktemp("explain") / "state") as product:
        yield product.serving()


def explained(lab: Lab, product: Product, *words: str) -> str:
    environment = {"WARP_STATE_DIR": str(product.state), "NETWORK": "own"}
    argv = [sys.executable, "-m", "entrypoint", "explain", *words]
    return lab.run("H", argv, environment=environment).stdout


@pytest.mark.parametrize(("words", "device", "priority"), CASES)
def test_the_walk_and_the_kernel_agree(
    lab: Lab, product: Product, words: list[str], device: str, priority: int
) -> None:
    said = json.loads(explained(lab, product, "--json", *words))
    assert (said["device"], said["priority"], said["contradicted"]) == (device, priority, None)


def test_the_articles_question_is_answered_in_plain_sentences(
    lab: Lab, product: Product, record: Record
) -> None:
    answer = explained(lab, product, str(HOST[0]), "198.51.100.50")
    assert "a reply from this server's own address, leaves by eth0." in answer
    assert "SSH keeps working" in answer
    record("explain 203.0.113.7 198.51.100.50", answer.splitlines()[0])
