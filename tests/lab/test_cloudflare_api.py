"""The emulated API over the lab's wire: its faults, each hitting once.

H ── R ── F 104.16.192.82 (api.cloudflareclient.com)      topology.py, tests/cloudflare
"""

import base64
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.cloudflare import faults
from tests.cloudflare.client import Cloudflare
from tests.cloudflare.faults import Fault
from tests.lab.stock import call
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("cloudflare")) as made:
        yield made


@pytest.fixture
def cf(lab: Lab) -> Iterator[Cloudflare]:
    yield lab.cloudflare
    lab.cloudflare.heal()
    lab.cloudflare.forget_calls()


FAULTS: dict[str, tuple[Fault, Callable[[httpx.Response], bool]]] = {
    "429": (faults.too_many("7"), lambda a: a.status_code == 429 and a.headers["retry-after"] == "7"),
    "500": (faults.status(500), lambda a: a.status_code == 500),
    "created": (faults.created_but_500(), lambda a: a.status_code == 500),
    "garbage": (faults.garbage(), lambda a: a.status_code == 200 and b"not json" in a.content),
    "html": (faults.html(), lambda a: a.status_code == 200 and a.text.startswith("<!DOCTYPE")),
    "empty": (faults.empty(), lambda a: a.status_code == 200 and a.content == b""),
    "types": (faults.wrong_types(), lambda a: a.json()["id"] == 7),
    "hostile": (
        faults.override({"config.peers.0.endpoint.v4": "127.0.0.1:70000", "token": faults.REMOVED}),
        lambda a: "127.0.0.1:70000" in a.text and "token" not in a.json(),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_hits_once_and_is_over(lab: Lab, cf: Cloudflare, name: str) -> None:
    fault, shown = FAULTS[name]
    cf.fault(fault)
    before = len(cf.edge.devices())
    body = {"key": base64.b64encode(bytes(32)).decode()}
    assert shown(call(lab, "H", "POST", "/v0a2158/reg", json=body))
    assert len(cf.edge.devices()) - before == (1 if fault.apply else 0)
    assert call(lab, "H", "GET", "/v0a2158/client_config").status_code == 200
    assert len(cf.registrations()) == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.truncated(), httpx.RemoteProtocolError),
        (faults.reset(), httpx.ReadError),
        (faults.hang(), httpx.ReadTimeout),
    ],
)
def test_a_broken_connection(lab: Lab, cf: Cloudflare, fault: Fault, error: type[Exception]) -> None:
    cf.fault(fault.only("GET", "client_config"))
    with pytest.raises(error):
        call(lab, "H", "GET", "/v0a2158/client_config", limit=0.5)
    assert call(lab, "H", "GET", "/v0a2158/client_config").status_code == 200
