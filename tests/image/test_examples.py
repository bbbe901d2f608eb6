"""The other examples, each brought up from its own compose file; the sidecar has tests of its own."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from docker.models.containers import Container

from examples.demo.client import SSLOCAL
from tests.conftest import Record
from tests.image.compose import ROOT, composed, resolved
from tests.image.example import BACK, Example
from tests.image.internet import OUTSIDE, STANDIN, Internet
from tests.image.sidecar import by_warp
from tests.image.stage import moment
from tests.lab.product import eventually

NAMES = sorted(one.parent.name for one in ROOT.glob("examples/*/compose.yaml"))
REQUIRED = {
    "WARP_ORG": "acme",
    "WARP_AUTH_CLIENT_ID": "0.access",
    "SHADOWSOCKS_PASSWORD": "MDEyMzQ1Njc4OWFiY2RlZg==",
}
SECRET = "the-service-secret"
HEALTHY = 10.0
IDLE = ["sleep", "infinity"]
ALIKE = ("cap_add", "cap_drop", "security_opt", "read_only", "tmpfs", "devices", "healthcheck")


@pytest.mark.parametrize("example", sorted({*NAMES} - {"demo"}))
def test_d09_v08_an_example_is_as_strict_as_the_compose_file(example: str) -> None:
    """V-08: who shares the network may neither raw packets nor change it; D-09: resolvers are named."""
    services = resolved(f"examples/{example}/compose.yaml", environment=REQUIRED)["services"]
    product = services.pop("ss-warp", None)
    if product:
        assert {key: product[key] for key in ALIKE} == {key: composed()[key] for key in ALIKE}
        owner = services["network"] if product.get("network_mode") == "service:network" else product
        assert product.get("network_mode") == "host" or owner["dns"] == composed()["dns"]
        assert product.get("network_mode") == "host" or owner["sysctls"] == composed()["sysctls"]
    for name, service in services.items():
        if name == "network" or service.get("network_mode", "").startswith(("service:", "container:")):
            assert {"ALL"} <= {*service["cap_drop"]} or {"NET_ADMIN", "NET_RAW"} <= {*service["cap_drop"]}
    assert (ROOT / "examples" / example / "README.md").exists()


def test_d01_other_project(internet: Internet, record: Record) -> None:
    """D-01: compose.yaml from nothing, with a name for others."""
    internet.heard()
    named = {"SS_WARP_CONTAINER": "ss-warp-test-by-name"}
    owner = Example(
        internet,
        "owner",
        {},
        named,
        files=("compose.yaml", "examples/other-project/named.yaml"),
        number=3,
        hasty=False,
    )
    with owner:
        product = owner.container("ss-warp")

        def healthy() -> bool:
            product.reload()
            return bool(product.attrs["State"]["Health"]["Status"] == "healthy")

        eventually(healthy, "healthy", 15)
        took = time.time() - moment(product.attrs["State"]["StartedAt"])
        record("from nothing to healthy", f"{took:.1f} s (limit {HEALTHY:.0f})")
        assert took <= HEALTHY
        with Example(internet, "other-project", {"app": IDLE}, named) as example:
            assert by_warp(example.asked("app"))
    assert internet.heard().leaks == {}


def test_two_containers_two_accounts(internet: Internet, record: Record) -> None:
    """Of compose.yaml both, on one machine: each has 172.16.0.2 inside, and an exit of its own."""
    internet.heard()
    before, exits = internet.registrations(), list[dict[str, list[str]]]()
    one, two = (
        Example(internet, name, {}, files=["compose.yaml"], number=8 + at) for at, name in enumerate("ab")
    )
    with one, two, ExitStack() as stack:
        for example in (one, two):
            example.connected()
        for example in (one, two):
            beside = example.beside(stack, *IDLE)
            exits.append(example.asked(beside))
            inside = beside.exec_run("ip -brief -4 address show dev wg0").output.decode()
            assert "172.16.0.2/32" in inside
    assert by_warp(exits[0]) and by_warp(exits[1])
    assert all(exits[0][name] != exits[1][name] for name in exits[0])
    assert internet.registrations() - before == 2
    assert internet.heard().leaks == {}
    record("two containers, two accounts", f"{exits[0]} and {exits[1]}")


def test_the_short_compose_file(internet: Internet) -> None:
    internet.heard()
    with (
        Example(internet, "short", {}, files=["compose.min.yaml"], number=6, hasty=False) as example,
        ExitStack() as stack,
    ):
        example.connected()
        assert by_warp(example.asked(example.beside(stack, *IDLE)))
        assert example.link().startswith("ss://")
    assert internet.heard().leaks == {}


def test_proxy_only(internet: Internet) -> None:
    internet.heard()
    password = {"SHADOWSOCKS_PASSWORD": REQUIRED["SHADOWSOCKS_PASSWORD"]}
    with Example(internet, "proxy-only", {"socks": None, "app": IDLE}, password, number=4) as example:
        direct = example.asked("app")
        assert {warp for _, warp in direct.values()} == {"off"}, direct
        eventually(lambda: by_warp(example.asked("app", "socks")), "the proxy is there", 10)
    assert internet.heard().leaks == {}


def test_team(internet: Internet) -> None:
    internet.cloudflare("PATCH", "/access", {"services": {REQUIRED["WARP_AUTH_CLIENT_ID"]: SECRET}})
    internet.keep("client-secret", SECRET)

    def there(config: dict[str, Any]) -> None:
        """Take the secret from a volume: the engine does not see this file system's."""
        product = config["services"]["ss-warp"]
        del config["secrets"], product["secrets"]
        product["environment"]["WARP_AUTH_CLIENT_SECRET_FILE"] = "/cloudflare/client-secret"

    with Example(internet, "team", {}, REQUIRED, there, number=5) as example:
        example.connected()
        assert (example.status()["warp"], example.status()["account"]) == ("plus", {"kind": "team"})
        assert SECRET not in example.container("ss-warp").logs().decode()


@pytest.fixture
def host(internet: Internet, number: int) -> Iterator[Container]:
    """A container that stands for the host; it serves on port 22."""
    with ExitStack() as stack:
        made = internet.run(
            stack,
            command=[*STANDIN, "serve", "22"],
            dns=["1.1.1.1"],
            cap_add=["NET_ADMIN"],
            **internet.placed(64 + number),
        )
        assert made.exec_run(BACK.split()).exit_code == 0
        yield made


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        ("proxy", 17),  # what the host sends itself is in clear: it is none of those that are watched
        ("full", 6),
    ],
)
def test_host(internet: Internet, host: Container, mode: str, number: int) -> None:
    def there(config: dict[str, Any]) -> None:
        config["services"]["ss-warp"]["network_mode"] = f"container:{host.id}"

    example = Example(internet, "host", {}, {"ROUTE_MODE": mode}, there, number=number)
    assert internet.who(example.uplink, 22) == f"{OUTSIDE}1"
    internet.heard()
    with example, ExitStack() as stack:
        example.connected()
        told = example.asked(host)
        assert by_warp(told) if mode == "full" else {warp for _, warp in told.values()} == {"off"}, told
        assert internet.who(example.uplink, 22) == f"{OUTSIDE}1"
        client = internet.run(stack, command=[*SSLOCAL, example.link()], **internet.placed(128 + number))
        eventually(lambda: by_warp(example.asked(client, "127.0.0.1")), "the client is there", 10)
        assert internet.heard().leaks == {}
        example.container("ss-warp").stop(timeout=10)
        assert {warp for _, warp in example.asked(host).values()} == {"off"}, "a clean stop takes all back"
        internet.heard()  # that was in clear, as it should be: no leak
