"""Each kind of trouble on the wire: log, status and doctor name it in one sentence, and nothing else.

H ── R ── F      topology.py; R drops and rejects, the emulated Cloudflare lies and forgets; a fast clock
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from entrypoint.health.diagnosis import Cause
from tests.cloudflare.config import EDGE_PORTS
from tests.conftest import Record
from tests.lab.product import Product, eventually
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab
PACE = 4
DOCTOR = (sys.executable, "-m", "entrypoint", "doctor")
OTHER_KEY = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
PORTS = ", ".join(map(str, EDGE_PORTS))


def drop(match: str, verdict: str = "drop") -> Callable[[Lab], None]:
    """Let R do this to what H sends."""
    return lambda lab: rules(lab, f'iifname "to-h" {match} {verdict}')


def rules(lab: Lab, rule: str) -> None:
    chain = f"chain forward {{\n type filter hook forward priority 0;\n {rule}\n }}"
    lab.run("R", ["nft", "-f", "-"], text=f"table inet ill {{\n {chain}\n}}")


def change(**changes: object) -> Callable[[Lab], None]:
    def make(lab: Lab) -> None:
        (device,) = [one for one in lab.cloudflare.edge.devices() if one.active]
        lab.cloudflare.change(device.id, **changes)

    return make


def two_days_off(lab: Lab) -> None:
    drop(f"udp dport {{ {PORTS} }}")(lab)
    lab.cloudflare.origin.clock(200_000)


@dataclass(frozen=True)
class Illness:
    """`make` causes it while ss-warp is connected, or before it starts (`first`)."""

    cause: Cause
    make: Callable[[Lab], None]
    first: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    within: float = 90
    """Seconds of the product's clock."""


NAMED = {"WARP_ENDPOINTS": "origin.test:2408"}
"""A name that no earlier start has resolved; those are remembered."""
ILLNESSES = {
    "UDP dropped": Illness(Cause.UDP_BLOCKED, drop("meta l4proto udp")),
    "UDP to the edge rejected": Illness(
        Cause.UDP_BLOCKED, drop(f"udp dport {{ {PORTS} }}", "reject with icmpx admin-prohibited")
    ),
    "WireGuard dropped": Illness(Cause.WIREGUARD_BLOCKED, drop(f"udp dport {{ {PORTS} }}"), within=300),
    "everything dropped": Illness(Cause.UPLINK_GONE, drop("meta nfproto { ipv4, ipv6 }")),
    "account deleted": Illness(Cause.ACCOUNT_GONE, change(active=False), within=300),
    "key swapped": Illness(Cause.KEY_REFUSED, change(key=OTHER_KEY), within=300),
    "certificate of another authority": Illness(
        Cause.CERTIFICATE, lambda lab: lab.cloudflare.origin.certificate("unknown"), first=True
    ),
    "certificate of the future": Illness(
        Cause.CLOCK_WRONG, lambda lab: lab.cloudflare.origin.certificate("early"), first=True
    ),
    "clock 45 s behind": Illness(
        Cause.CLOCK_WRONG,
        lambda lab: lab.cloudflare.origin.clock(45),
        first=True,
        environment={"SHADOWSOCKS": "on"},
    ),
    "clock days behind, and no handshake": Illness(
        Cause.CLOCK_WRONG,
        two_days_off,
        first=True,
    ),
    "resolvers dropped": Illness(
        Cause.PROVIDER_DNS, drop("th dport 53"), first=True, environment=NAMED, within=160
    ),
    "reserved bytes dropped": Illness(
        Cause.RESERVED_FILTERED,
        drop("@ih,0,8 4 @ih,8,24 != 0"),
        first=True,
        environment={"WARP_RESERVED": "193,29,1"},  # set, so that nothing else is tried
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def state(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with an account."""
    state = tmp_path_factory.mktemp("causes") / "state"
    with Product(lab, state, environment={"SHADOWSOCKS": "off"}) as product:
        product.reached("connected")
    return state


@contextmanager
def ill(lab: Lab, illness: Illness) -> Iterator[None]:
    (before,) = [one for one in lab.cloudflare.edge.devices() if one.active]
    try:
        illness.make(lab)
        yield
    finally:
        lab.run("R", ["nft", "delete", "table", "inet", "ill"], check=False)
        lab.cloudflare.origin.certificate("good")
        lab.cloudflare.origin.clock(0)
        lab.cloudflare.change(before.id, active=True, key=before.key)


@pytest.mark.parametrize("name", ILLNESSES)
def test_it_is_named_in_log_status_and_doctor(lab: Lab, state: Path, name: str, record: Record) -> None:
    illness = ILLNESSES[name]
    environment = {"SHADOWSOCKS": "off", **illness.environment}
    product = Product(lab, state, environment=environment, pace=PACE)
    if illness.first:
        with ill(lab, illness), product:
            named(lab, product, illness, name, record)
    else:
        with product:
            product.reached("connected")
            with ill(lab, illness):
                named(lab, product, illness, name, record)


def found_cause(product: Product, within: float) -> dict[str, str]:
    found = eventually(lambda: product.status().get("cause"), f"a cause:\n{product.log}", within / PACE)
    return dict(found or {})


def named(lab: Lab, product: Product, illness: Illness, name: str, record: Record) -> None:
    begun = time.monotonic()
    cause = found_cause(product, illness.within)
    took = (time.monotonic() - begun) * PACE
    assert cause["kind"] == illness.cause.name.lower().replace("_", "-"), json.dumps(cause)
    assert cause["sentence"] in product.said(cause["remedy"])
    others = [one.value for one in Cause if one is not illness.cause]
    assert not [one for one in others if one in product.log]
    inside = ("nsenter", "--mount", "--root", "--target", str(product.pid), *DOCTOR)
    environment = {"NETWORK": "own", "WARP_STATE_DIR": str(product.state), **illness.environment}
    doctor = lab.run("H", inside, environment=environment, check=False)
    assert doctor.returncode == 69, doctor.stdout + doctor.stderr
    (found,) = [one for one in doctor.stdout.splitlines() if one.startswith("FAIL")]
    assert cause["sentence"] in found and cause["remedy"] in found
    assert not [one for one in others if one in doctor.stdout]
    record(name, f"{cause['kind']} after {took:.0f} s: {cause['sentence']}")


@pytest.mark.parametrize("setting", ["off", "auto"])
def test_without_the_reserved_bytes_it_connects_as_the_remedy_says(
    lab: Lab, state: Path, setting: str
) -> None:
    """Left at auto, ss-warp tries that by itself."""
    illness = ILLNESSES["reserved bytes dropped"]
    environment = {"SHADOWSOCKS": "off", "WARP_RESERVED": setting}
    with ill(lab, illness), Product(lab, state, environment=environment, pace=PACE) as product:
        product.reached("connected", 60)
        eventually(lambda: product.status()["reserved"] is None, "no reserved bytes")
