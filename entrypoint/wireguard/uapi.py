"""WireGuard's cross-platform configuration protocol (https://www.wireguard.com/xplatform/). Pure."""

import os
from base64 import b64decode

from entrypoint.wireguard.device import DeviceConfig, Stats

GET = "get=1\n\n"


def encode(config: DeviceConfig) -> str:
    """Return the request that makes `config` the whole configuration: every old peer goes first."""
    lines = [
        "set=1",
        f"private_key={_hex(config.private_key)}",
        f"fwmark={config.mark}",
        "replace_peers=true",
        f"public_key={_hex(config.peer_public_key)}",
        f"endpoint={config.endpoint}",
        f"persistent_keepalive_interval={config.keepalive}",
        "replace_allowed_ips=true",
        *(f"allowed_ip={network}" for network in config.allowed_ips),
    ]
    return "\n".join(lines) + "\n\n"


def parse(answer: str) -> Stats:
    """Return the counters in the answer to `GET`; a device without a peer has none. Raises OSError."""
    fields = _fields(answer)
    handshake = int(fields.get("last_handshake_time_sec", 0))
    nanoseconds = int(fields.get("last_handshake_time_nsec", 0))
    return Stats(
        handshake=handshake + nanoseconds / 1e9,
        rx_bytes=int(fields.get("rx_bytes", 0)),
        tx_bytes=int(fields.get("tx_bytes", 0)),
    )


def check(answer: str) -> None:
    """Raise OSError unless the answer says errno=0; wireguard-go sends negative numbers."""
    _fields(answer)


def _fields(answer: str) -> dict[str, str]:
    """Split an answer into its fields; with one peer no key but allowed_ip occurs twice."""
    fields = dict(line.partition("=")[::2] for line in answer.splitlines() if line)
    if "errno" not in fields:
        raise ConnectionAbortedError("wireguard-go hung up in the middle of an answer")
    if number := abs(int(fields["errno"])):
        raise OSError(number, f"wireguard-go refuses the configuration: {os.strerror(number)}")
    return fields


def _hex(key: str) -> str:
    return b64decode(key, validate=True).hex()
