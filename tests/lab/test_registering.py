"""A first start whose API answers badly: one line, a retrying in the status, closed, nothing half written."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloudflare.faults import Fault, garbage, hang, html, override, status, too_many, truncated
from tests.lab.probes import Prober
from tests.lab.product import Product, eventually, health
from tests.lab.scene import TRACE4, TRACE6, Scene, client_of, watched
from tests.lab.senders import ANYBODY, THE_SERVERS, light
from tests.lab.topology import HOST, Lab

pytestmark = pytest.mark.lab

REFUSED = 69
ENDPOINT = "config.peers.0.endpoint"


@pytest.fixture
def product(lab: Lab, tmp_path: Path) -> Iterator[Product]:
    lab.cloudflare.forget_calls()
    yield Product(lab, tmp_path / "state")
    lab.cloudflare.heal()


def half_written(state: Path) -> list[str]:
    """Return what is there besides the key that was kept before the call, and what is not whole."""
    wrong: list[str] = []
    for file in state.iterdir():
        match file.name:
            case "account.json":
                content = json.loads(file.read_text())
                wrong += [] if set(content) == {"format", "pending"} else [file.name]
            case "lock" | "addresses.json" | "network.json":
                continue
            case _:
                wrong.append(file.name)
    return wrong


def shown(lab: Lab, product: Product) -> list[str]:
    """Return the secrets that its log shows: the key that is kept, the tokens that were answered."""
    key = product.account()["pending"]["private_key"]
    secrets = [key, *(device.token for device in lab.cloudflare.edge.devices())]
    return [one for one in secrets if one in product.log]


@pytest.mark.parametrize(
    ("fault", "why", "least"),
    [
        (too_many("1"), "429 Too Many Requests", 1),
        (status(500), "500 Internal Server Error", 60),
        (garbage(), "without a device", 60),
        (truncated(), "cannot reach api.cloudflareclient.com", 60),
        (html(), "without a device", 60),
    ],
    ids=["429", "500", "garbage", "truncated", "html"],
)
def test_it_waits_and_says_when_it_tries_next(
    lab: Lab, product: Product, fault: Fault, why: str, least: int
) -> None:
    lab.cloudflare.fault(fault.only("POST", times=None))
    with product:
        line = product.said("retrying in")
        assert why in line
        (waiting,) = (int(words.split()[0]) for words in [line.partition("retrying in ")[2]])
        assert waiting >= least
        assert product.reached("registering")["reason"] in line
        code, text = health(lab)
        assert code == 503
        assert text.startswith("registering: ")
        with watched(lab), Prober(lab, light(ANYBODY + THE_SERVERS)) as prober:
            eventually(lambda: prober.tried > 500, "probes")
        assert not prober.went
        assert [one for one in product.lines if "retrying in" in one] == [line], "one line"
        assert "Traceback" not in product.log
        assert shown(lab, product) == []
        assert half_written(product.state) == []
        assert len(lab.cloudflare.registrations()) == 1
        assert product.stop() == 0


def test_an_api_that_hangs_is_waited_for(lab: Lab, product: Product) -> None:
    lab.cloudflare.fault(hang().only("POST", times=None))
    with watched(lab), product:
        product.reached("registering")
        eventually(lambda: health(lab)[0] == 503, "healthz answers")
        eventually(lambda: "pending" in product.account(), "the key is kept first")
        assert half_written(product.state) == []
        assert product.stop() == 0


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (override({"config.peers": "none"}), "config.peers: expected a list"),
        (override({"config.peers.0.public_key": "AAAA"}), "public_key"),
    ],
    ids=["types", "short key"],
)
def test_an_account_that_cannot_be_used_is_saved_and_read_again(
    lab: Lab, product: Product, fault: Fault, why: str
) -> None:
    lab.cloudflare.fault(fault.only("POST"))
    with watched(lab), product:
        assert product.ended(15) == REFUSED
        (line,) = (one for one in product.lines if one.startswith("ss-warp: "))
        assert why in line
        assert "Traceback" not in product.log
        assert shown(lab, product) == []
        assert half_written(product.state) == []
        # A refused request is repeated after five minutes; what is registered is kept meanwhile.
        product.start().said("retrying in")
        assert len(lab.cloudflare.registrations()) == 1, "what is registered is never registered again"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (override({f"{ENDPOINT}.v4": "127.0.0.1:2408"}), "loopback"),
        (override({f"{ENDPOINT}.v4": f"{HOST[0]}:2408"}), "this machine"),
        (override({f"{ENDPOINT}.v4": "10.0.0.1:2408"}), "private"),
        (override({f"{ENDPOINT}.v4": "162.159.192.1:70000"}), "port"),
    ],
    ids=["loopback", "own", "private", "port 70000"],
)
def test_a_hostile_endpoint_costs_itself_and_a_warning(
    lab: Lab, product: Product, fault: Fault, why: str
) -> None:
    lab.cloudflare.fault(fault.only("POST"))
    with product:
        assert product.reached("connected")["endpoint"].startswith("[")
        assert why in product.said("ignored unusable parts of the account")
        assert len(lab.cloudflare.registrations()) == 1


def test_port_0_is_what_the_real_api_sends(lab: Lab, product: Product, tmp_path: Path) -> None:
    with product:
        product.serving()
        (call,) = lab.cloudflare.registrations()
        assert call.status == 200
        assert product.status()["endpoint"].endswith(":2408")
        with client_of(lab, product, tmp_path) as client:
            scene = Scene(lab, product, client)
            assert scene.reaches(TRACE4)
            assert scene.reaches(TRACE6)
