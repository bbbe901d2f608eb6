"""The devices the API knows: their record, where it is kept, and how they look in JSON."""

import base64
import json
import secrets
import string
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from nacl.public import PrivateKey

from tests.cloudflare.config import EDGE_NAME, EDGE_PORTS, Config

ADDRESS4 = "172.16.0.2"
"""Every consumer device has it."""
RESERVED = b"\xc1\x1d"
"""How every device's reserved bytes begin."""
NEWER = 3596
"""From about this `v0a` on, answers carry key_type, tunnel_type, policy and endpoint ports."""


PEM = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"
"""What a MASQUE edge has for a key."""


@dataclass(frozen=True, slots=True)
class Device:
    """One registration. `number` counts from 1 and decides the addresses; `active` False: deleted."""

    number: int
    key: str
    request: Mapping[str, Any]
    address6: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    token: str = field(default_factory=lambda: str(uuid.uuid4()))
    account_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    account_type: str = "free"
    license: str = field(default_factory=lambda: new_license())
    created: str = field(default_factory=lambda: _now())
    updated: str = field(default_factory=lambda: _now())
    active: bool = True
    free_session: bool = False
    """It was connected before its licence was bound: it goes on as a free one."""
    bound: bool = True
    """It belongs to an account; else the edge is silent."""
    revoked: bool = False
    """By an organisation's dashboard, which can take it back."""
    tunnel_type: str = "wireguard"

    @property
    def served(self) -> bool:
        """Whether the edge knows its WireGuard key."""
        return self.active and self.bound and not self.revoked and self.tunnel_type == "wireguard"

    @property
    def reserved(self) -> bytes:
        """The three reserved bytes; known beforehand, so that an observer of the wire can tell them."""
        return RESERVED + bytes([self.number % 256])

    @property
    def client_id(self) -> str:
        """The same as the API says it."""
        return base64.b64encode(self.reserved).decode()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a device's edge listens and where its packets come out."""

    endpoint4: IPv4Address
    endpoint6: IPv6Address
    exit4: IPv4Address
    exit6: IPv6Address


def addresses(config: Config, number: int) -> Addresses:
    """Return the addresses of the device with this number; the endpoint's IPv6 spells its IPv4."""
    endpoint4 = config.endpoints4[number]
    return Addresses(
        endpoint4=endpoint4,
        endpoint6=config.endpoints6[int(endpoint4)],
        exit4=config.exits4[number],
        exit6=config.exits6[number],
    )


class Devices:
    """All devices, and the edge's key pair, kept in the state directory."""

    def __init__(self, state: Path) -> None:
        self._file = state / "devices.json"
        saved = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._all = [Device(**one) for one in saved.get("devices", [])]
        self.edge_key = saved.get("edge_key") or base64.b64encode(bytes(PrivateKey.generate())).decode()

    @property
    def edge_public_key(self) -> str:
        """The peer key that the API hands out."""
        return base64.b64encode(bytes(PrivateKey(base64.b64decode(self.edge_key)).public_key)).decode()

    def all(self) -> list[Device]:
        """Return every device in order of registration."""
        return list(self._all)

    def get(self, identity: str) -> Device | None:
        """Return the device with this id, deleted or not."""
        return next((one for one in self._all if one.id == identity), None)

    def add(self, key: str, request: Mapping[str, Any], **kind: Any) -> Device:
        """Register a device; `kind` are fields that differ from a consumer's."""
        made = Device(len(self._all) + 1, key, request, new_address6(), **kind)
        self._all.append(made)
        self._save()
        return made

    def change(self, device: Device, **changes: Any) -> Device:
        """Store the device with these fields changed."""
        changed = replace(device, updated=_now(), **changes)
        self._all[device.number - 1] = changed
        self._save()
        return changed

    def _save(self) -> None:
        text = json.dumps({"edge_key": self.edge_key, "devices": [asdict(one) for one in self._all]})
        fresh = self._file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        fresh.replace(self._file)


def new_address6() -> str:
    """Return a tunnel address of a device's own."""
    words = [0x2606, 0x4700, 0x110, 0x8000 | secrets.randbits(12), *(secrets.randbits(16) for _ in range(4))]
    return str(IPv6Address(":".join(f"{one:x}" for one in words)))


def account_json(device: Device) -> dict[str, Any]:
    """Return the account as the API shows it."""
    return {
        "id": device.account_id,
        "account_type": device.account_type,
        "created": device.created,
        "updated": device.updated,
        "premium_data": 0,
        "quota": 0,
        "usage": 0,
        # True for free ones too: no sign of WARP+.
        "warp_plus": True,
        "referral_count": 0,
        "referral_renewal_countdown": 0,
        "role": "child",
        "license": device.license,
    }


def device_json(device: Device, config: Config, peer_key: str, *, newer: bool) -> dict[str, Any]:
    """Return the device as the API shows it, without the token."""
    place = addresses(config, device.number)
    asked = device.request
    endpoint: dict[str, Any] = {
        "v4": f"{place.endpoint4}:0",
        "v6": f"[{place.endpoint6}]:0",
        "host": f"{EDGE_NAME}:2408",
    }
    body: dict[str, Any] = {
        "id": device.id,
        "type": asked.get("type") or "a",
        "model": asked.get("model", ""),
        "name": asked.get("name", ""),
        "key": device.key,
        "account": account_json(device),
        "config": {
            "client_id": device.client_id,
            "peers": [{"public_key": peer_key, "endpoint": endpoint}],
            "interface": {"addresses": {"v4": ADDRESS4, "v6": device.address6}},
            "services": {"http_proxy": "172.16.0.1:2480"},
        },
        "warp_enabled": bool(asked.get("warp_enabled", False)),
        "waitlist_enabled": False,
        "created": device.created,
        "updated": device.updated,
        "tos": asked.get("tos", ""),
        "place": 0,
        "locale": str(asked.get("locale", "en_US")).replace("_", "-"),
        "enabled": True,
    }
    body |= {name: asked.get(name, "") for name in ("install_id", "fcm_token", "serial_number")}
    if newer:
        endpoint["ports"] = list(EDGE_PORTS)
        body |= {"key_type": "curve25519", "tunnel_type": device.tunnel_type}
        body |= {"policy": {"tunnel_protocol": device.tunnel_type}}
    if device.tunnel_type == "masque":
        body |= {"key_type": "secp256r1", "tunnel_type": "masque", "policy": {"tunnel_protocol": "masque"}}
        endpoint |= {"v4": "162.159.198.1:0", "v6": "[2606:4700:103::1]:0", "ports": [443, 500, 1701, 4500]}
        body["config"]["peers"][0]["public_key"] = PEM
    return body


def usable_key(key: object) -> bool:
    """Say whether it is base64 of 32 bytes; that it is a point of the curve is not asked."""
    if not isinstance(key, str) or len(key) != 44:
        return False
    try:
        return len(base64.b64decode(key, validate=True)) == 32
    except ValueError:
        return False


def new_license() -> str:
    """Return a licence key: three groups of eight."""
    letters = string.ascii_letters + string.digits
    return "-".join("".join(secrets.choice(letters) for _ in range(8)) for _ in range(3))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
