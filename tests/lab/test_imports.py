"""What users of other tools have in hand connects here, and what is exported connects there.

C  stock wg-quick with an exported profile        H  the product with an imported file
└──────────────── R ─────────────────────────────────┘ ── F   topology.py
"""

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Record
from tests.lab.product import Product, eventually
from tests.lab.stock import Account, register
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def made(lab: Lab) -> Account:
    """An account that another tool has registered."""
    return register(lab, "C")


def wgcf_profile(account: Account) -> str:
    """As wgcf's `generate` writes it: the template of its wireguard/profile.go."""
    v4, v6 = account.addresses
    peer = account.body["config"]["peers"][0]
    return f"""[Interface]
PrivateKey = {account.private_key}
Address = {v4}/32, {v6}/128
DNS = 1.1.1.1, 1.0.0.1, 2606:4700:4700::1111, 2606:4700:4700::1001
MTU = 1280
[Peer]
PublicKey = {peer["public_key"]}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = {peer["endpoint"]["host"]}
"""


def wgcf_account(account: Account) -> str:
    """As wgcf's `register` writes it (its config package, by viper): sorted, single quotes."""
    body = account.body
    return f"""access_token = '{body["token"]}'
device_id = '{body["id"]}'
license_key = '{body["account"]["license"]}'
private_key = '{account.private_key}'
"""


def plain(account: Account) -> str:
    """By hand: other case, two address lines, comments, an address for an endpoint."""
    v4, v6 = account.addresses
    return f"""# my WARP
[interface]
privatekey={account.private_key}
address={v4}
address = {v6}/128  # IPv6
[peer]
publickey = {account.body["config"]["peers"][0]["public_key"]}
allowedips = 0.0.0.0/0
allowedips = ::/0
endpoint = {account.endpoints[0]}:2408
"""


def warp_reg(account: Account) -> str:
    """As warp-reg.sh prints it."""
    config = account.body["config"]
    v4, v6 = account.addresses
    reserved = base64.b64decode(config["client_id"])
    return json.dumps(
        {
            "endpoint": {"v4": account.endpoints[0], "v6": f"[{account.endpoints[1]}]"},
            "reserved_dec": list(reserved),
            "reserved_hex": f"0x{reserved.hex()}",
            "reserved_str": config["client_id"],
            "private_key": account.private_key,
            "public_key": config["peers"][0]["public_key"],
            "v4": v4,
            "v6": v6,
        }
    )


FORMS: dict[str, tuple[Callable[[Account], str], str, list[str]]] = {
    # what writes it, what it is recognised as, the calls it costs
    "wgcf-profile.conf": (wgcf_profile, "a WireGuard profile", []),
    "wgcf-account.toml": (wgcf_account, "a wgcf account", ["GET 200"]),
    "plain.conf": (plain, "a WireGuard profile", []),
    "warp-reg.json": (warp_reg, "a registration as JSON", []),
}


@pytest.mark.parametrize("name", FORMS)
def test_it_is_recognised_and_connects(
    lab: Lab, made: Account, tmp_path: Path, name: str, record: Record
) -> None:
    written, recognised, calls = FORMS[name]
    (tmp_path / name).write_text(written(made))
    cf = lab.cloudflare
    cf.forget_calls()
    environment = {"SHADOWSOCKS": "off", "WARP_IMPORT_FILE": str(tmp_path / name)}
    with Product(lab, tmp_path / "state", environment=environment) as one:
        seen = one.reached("connected")
        (device,) = (device for device in cf.edge.devices() if device.id == made.body["id"])
        assert (seen["warp"], seen["exit"]["ipv4"]) == ("on", device.exit4)
        assert f"imported the account in {tmp_path / name} ({recognised})" in one.log
        assert ("has no token" in one.log) is (not calls)
        assert made.private_key not in one.log and made.body["token"] not in one.log
    assert [f"{one.method} {one.status}" for one in cf.calls()] == calls
    record(f"imported {name}", f"recognised as {recognised}, connected, {len(calls)} calls")


@pytest.fixture
def quick(lab: Lab, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Run wg-quick in C; a resolvconf that swallows all stands in for the one that hosts have."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "resolvconf").write_text("#!/bin/sh\ncat >/dev/null\n")
    (tools / "resolvconf").chmod(0o755)
    profile = tmp_path / "warp0.conf"

    def run(word: str) -> str:
        path = {"PATH": f"{tools}:{os.environ['PATH']}"}
        return lab.run("C", ["wg-quick", word, str(profile)], environment=path, check=word == "up").stderr

    yield run
    run("down")


def test_what_is_exported_is_taken_by_wg_quick_as_it_is(
    lab: Lab, tmp_path: Path, quick: Callable[[str], str], record: Record
) -> None:
    with Product(lab, tmp_path / "state", environment={"SHADOWSOCKS": "off"}) as one:
        one.reached("connected")
        device = lab.cloudflare.edge.devices()[-1]
    done = lab.run(
        "H",
        [sys.executable, "-m", "entrypoint", "account", "export"],
        environment={"WARP_STATE_DIR": str(one.state)},
    )
    (tmp_path / "warp0.conf").write_text(done.stdout)
    (tmp_path / "warp0.conf").chmod(0o600)
    quick("up")

    def trace(host: str) -> dict[str, str]:
        with lab.inside("C"), httpx.Client(trust_env=False, timeout=2) as client:
            try:
                text = client.get(f"http://{host}/cdn-cgi/trace").text
            except httpx.HTTPError:
                return {}
        return dict(line.split("=", 1) for line in text.splitlines())

    for host, exit_ in (("1.1.1.1", device.exit4), ("[2606:4700:4700::1111]", device.exit6)):
        # gotatun's handshake timestamps are 27 s ahead of the kernel's and of wireguard-go's (they count leap
        # seconds differently), so until then the edge takes another engine's handshake for a replay.
        seen = eventually(lambda: trace(host), f"a trace of {host}", 50)  # noqa: B023
        assert (seen["warp"], seen["ip"]) == ("on", exit_)
    record("exported profile with stock wg-quick", "warp=on by IPv4 and IPv6")
