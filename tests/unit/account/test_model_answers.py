"""Which answers make an account, and the one line that each hostile one gets."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from entrypoint.account.model import Account, public_key
from entrypoint.addresses import NamedEndpoint
from entrypoint.strict_json import InvalidError
from tests.fakes.warp_api import EDGE_KEY, device_object
from tests.unit.account.devices import PRIVATE_KEY, read


def peer(device: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = device["config"]["peers"][0]
    return found


def inner(device: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = device["config"]["interface"]["addresses"]
    return found


def changed(where: Callable[[dict[str, Any]], dict[str, Any]], **members: object) -> dict[str, Any]:
    device = device_object(public_key(PRIVATE_KEY))
    where(device).update(members)
    return device


def endpoint(**members: object) -> dict[str, Any]:
    return changed(lambda device: peer(device)["endpoint"], **members)


def config(**members: object) -> dict[str, Any]:
    return changed(lambda device: device["config"], **members)


def whole(**members: object) -> dict[str, Any]:
    return changed(lambda device: device, **members)


ACCEPTED: dict[str, tuple[object, Callable[[Account], object], object]] = {
    "null account": (whole(account=None), lambda a: a.license_key, None),
    "no licence": (whole(account={}), lambda a: a.license_key, None),
    "no client id": (config(client_id=None), lambda a: a.client_id, None),
    "only v4 inside": (changed(inner, v6=None), lambda a: len(a.addresses), 1),
    "only v6 inside": (changed(inner, v4=None), lambda a: len(a.addresses), 1),
    "prefix lengths": (
        changed(inner, v4="172.16.0.2/24", v6="fd01:5ca1:ab1e:8::1/64"),
        lambda a: [str(address) for address in a.addresses],
        ["172.16.0.2/32", "fd01:5ca1:ab1e:8::1/128"],
    ),
    "no v6 endpoint": (endpoint(v6=None), lambda a: len(a.endpoints), 1),
    "only a name": (endpoint(v4=None, v6=None), lambda a: a.endpoints, ()),
    "no name": (endpoint(host=None), lambda a: a.endpoint_name, None),
    "name without port": (
        endpoint(host="a.example"),
        lambda a: a.endpoint_name,
        NamedEndpoint("a.example", 2408),
    ),
    "ports": (endpoint(ports=[2408, 0, 65535]), lambda a: a.ports, (2408, 2408, 65535)),
    "a real port": (endpoint(v4="162.159.192.6:500"), lambda a: a.endpoints[0].port, 500),
    "documentation range": (endpoint(v4="192.0.2.1:0"), lambda a: a.endpoints[0].port, 2408),
    "unknown members": (whole(novelty={"deep": [1]}), lambda a: a.kind, "free"),
    "a team device": (
        whole(id="t.11111111-2222-4333-8444-555555555555"),
        lambda a: a.access and a.access.device_id[:2],
        "t.",
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str) -> None:
    device, look, expected = ACCEPTED[case]
    assert look(read(device)) == expected


V4, V6 = "config.peers[0].endpoint.v4: ", "config.peers[0].endpoint.v6: "
KEY, HOST = "config.peers[0].public_key: ", "config.peers[0].endpoint.host: "
INNER = "config.interface.addresses"

TOLERATED: dict[str, tuple[object, str]] = {
    "loopback": (endpoint(v4="127.0.0.1:0"), V4 + "127.0.0.1 is loopback"),
    "private": (endpoint(v4="192.168.1.1:2408"), V4 + "192.168.1.1 is private"),
    "carrier-grade NAT": (endpoint(v4="100.64.0.1:0"), V4 + "100.64.0.1 is private"),
    "metadata": (endpoint(v4="169.254.169.254:0"), V4 + "169.254.169.254 is link-local"),
    "multicast": (endpoint(v4="239.1.1.1:0"), V4 + "239.1.1.1 is multicast"),
    "broadcast": (endpoint(v4="255.255.255.255:0"), V4 + "255.255.255.255 is reserved"),
    "own": (endpoint(v4="198.51.100.7:0"), V4 + "198.51.100.7 is this machine's own"),
    "own v6": (endpoint(v6="[2001:db8::7]:0"), V6 + "2001:db8::7 is this machine's own"),
    "loopback v6": (endpoint(v6="[::1]:0"), V6 + "::1 is loopback"),
    "unique local": (endpoint(v6="[fd00::1]:0"), V6 + "fd00::1 is private"),
    "mapped": (endpoint(v6="[::ffff:127.0.0.1]:0"), V6 + "::ffff:127.0.0.1 is IPv4-mapped"),
    "zone": (endpoint(v6="[fe80::1%eth0]:0"), V6 + "not an IPv6 address"),
    "v6 for v4": (endpoint(v4="[2606:4700::1]:0"), V4 + "expected an IPv4 address with a port"),
    "name for v4": (endpoint(v4="evil.example:0"), V4 + "expected an IPv4 address with a port"),
    "port 70000": (endpoint(v4="162.159.192.6:70000"), V4 + "port 70000 is not in 1..65535"),
    "shell": (endpoint(v4="1.1.1.1;reboot:0"), V4 + "not a host name"),
    "blank": (endpoint(v4="1.1.1.1 :0"), V4 + "expected 1 to 512 printable characters without blanks"),
    "a number": (endpoint(v4=16843009), V4 + "expected a string"),
    "host of shell characters": (endpoint(host="$(id):1"), HOST + "not a host name"),
    "host an address": (endpoint(host="10.0.0.1:1"), HOST + "expected a host name"),
    "host port": (endpoint(host="a.example:70000"), HOST + "port 70000 is not in 1..65535"),
    "ports a string": (endpoint(ports="2408"), "config.peers[0].endpoint.ports: expected a list"),
    "ports too high": (
        endpoint(ports=[2408, 70000]),
        "config.peers[0].endpoint.ports[1]: expected a port in 1..65535",
    ),
    "ports a bool": (endpoint(ports=[True]), "config.peers[0].endpoint.ports[0]: expected an integer"),
    "client id of 2 bytes": (config(client_id="AQI="), "config.client_id: expected the base64 of 3 bytes"),
    "client id of 4 bytes": (
        config(client_id="AQIDBA=="),
        "config.client_id: expected the base64 of 3 bytes",
    ),
    "client id a list": (config(client_id=[1, 2, 3]), "config.client_id: expected a string"),
    "tunnel loopback": (changed(inner, v4="127.0.0.1"), INNER + ".v4: 127.0.0.1 is loopback"),
    "tunnel own": (changed(inner, v6="2001:db8::7"), INNER + ".v6: 2001:db8::7 is this machine's own"),
    "tunnel v6 for v4": (changed(inner, v4="::2"), INNER + ".v4: expected an IPv4 address"),
    "tunnel prefix": (
        changed(inner, v4="172.16.0.2/33"),
        INNER + ".v4: expected a prefix length of at most 32",
    ),
    "tunnel prefix empty": (
        changed(inner, v4="172.16.0.2/"),
        INNER + ".v4: expected a prefix length of at most 32",
    ),
    "tunnel zone": (changed(inner, v6="fd00::1%1"), INNER + ".v6: expected an address without a zone"),
    "licence a number": (whole(account={"license": 1}), "account.license: expected a string"),
    "account a string": (whole(account="free"), "account: expected an object"),
}


@pytest.mark.parametrize("case", TOLERATED)
def test_what_is_not_needed_to_connect_costs_only_itself_and_a_warning(case: str) -> None:
    device, words = TOLERATED[case]
    warnings: list[str] = []
    account = read(device, warnings.append)
    assert warnings == [words]
    assert account.addresses and (account.endpoints or account.endpoint_name)


ABSENT: dict[str, tuple[object, Callable[[Account], object]]] = {
    "v4": (endpoint(v4=""), lambda a: not [one for one in a.endpoints if one.address.version == 4]),
    "v4 unspecified": (endpoint(v4="0.0.0.0:0"), lambda a: len(a.endpoints) == 1),
    "v6 unspecified": (endpoint(v6="[::]:0"), lambda a: len(a.endpoints) == 1),
    "host": (endpoint(host=""), lambda a: a.endpoint_name is None),
    "ports": (endpoint(ports=[]), lambda a: a.ports == ()),
    "ports 0": (endpoint(ports=0), lambda a: a.ports == ()),
    "client id": (config(client_id=""), lambda a: a.client_id is None),
    "inner": (changed(inner, v6=""), lambda a: a.v6 is None),
    "licence": (whole(account={"license": ""}), lambda a: a.license_key is None),
    "type": (whole(account={"account_type": ""}), lambda a: a.kind == "free"),
    "account": (whole(account={}), lambda a: a.kind == "free"),
    "protocol": (whole(policy={"tunnel_protocol": ""}, tunnel_type=""), lambda a: a.kind == "free"),
}


@pytest.mark.parametrize("case", ABSENT)
def test_empty_is_absent(case: str) -> None:
    """Go writes what it does not have as "", 0 or []."""
    device, holds = ABSENT[case]
    warnings: list[str] = []
    assert holds(read(device, warnings.append))
    assert not warnings


def test_the_first_usable_peer_counts() -> None:
    device = device_object(public_key(PRIVATE_KEY))
    device["config"]["peers"].insert(0, {"public_key": "-----BEGIN PUBLIC KEY-----", "endpoint": {}})
    assert read(device).peer_public_key == EDGE_KEY


SPELLED: dict[str, tuple[object, Callable[[Account], object]]] = {
    "ports as strings": (endpoint(ports=["2408", "500"]), lambda a: a.ports == (2408, 500)),
    "client id for URLs": (config(client_id="-_AB"), lambda a: a.client_id == b"\xfb\xf0\x01"),
    "a kind in words": (whole(account={"account_type": "WARP Plus"}), lambda a: a.kind == "plus"),
    "a long token": (whole(token="x" * 600), lambda a: a.access and len(a.access.token) == 600),
}


@pytest.mark.parametrize("case", SPELLED)
def test_other_spellings(case: str) -> None:
    device, holds = SPELLED[case]
    assert holds(read(device))


REFUSED: dict[str, tuple[object, str]] = {
    "a list": ([], "expected an object"),
    "empty": ({}, "config: missing"),
    "config of wrong type": (whole(config="x"), "config: expected an object"),
    "no peers": (config(peers=None), "config.peers: no usable peer"),
    "peers empty": (config(peers=[]), "config.peers: no usable peer"),
    "peers an object": (config(peers={"a": 1}), "config.peers: expected a list"),
    "peers of wrong type": (config(peers=[1]), "config.peers: config.peers[0]: expected an object"),
    "too many peers": (config(peers=[{}] * 65), "config.peers: more than 64 entries"),
    "no endpoint": (changed(peer, endpoint=None), "config.peers: no usable endpoint"),
    "endpoint empty": (changed(peer, endpoint={}), "config.peers: no usable endpoint"),
    "no key": (changed(peer, public_key=None), "config.peers: no usable peer"),
    "short key": (
        changed(peer, public_key="AQID"),
        "config.peers: " + KEY + "expected the base64 of 32 bytes",
    ),
    "key no base64": (
        changed(peer, public_key="!" * 44),
        "config.peers: " + KEY + "expected the base64 of 32 bytes",
    ),
    "key not canonical": (
        changed(peer, public_key=EDGE_KEY[:-2] + "B="),
        "config.peers: " + KEY + "expected the base64 of 32 bytes",
    ),
    "key of zeros": (
        changed(peer, public_key=base64.b64encode(bytes(32)).decode()),
        "config.peers: " + KEY + "all zero",
    ),
    "our own key": (
        changed(peer, public_key=public_key(PRIVATE_KEY)),
        "config.peers: " + KEY + "it is our own",
    ),
    "no tunnel address": (changed(inner, v4=None, v6=None), "config.interface: no usable address"),
    "no interface": (config(interface=None), "config.interface: no usable address"),
    "no id": (whole(id=None), "id: missing"),
    "id with a path": (whole(id="../x"), "id: expected letters, digits, dots and dashes"),
    "no token": (whole(token=None), "token: missing"),
    "token with a line": (
        whole(token="a\r\nX: y"),
        "token: expected 1 to 4096 printable characters without blanks",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    device, words = REFUSED[case]
    with pytest.raises(InvalidError) as caught:
        read(device)
    assert str(caught.value) == words
