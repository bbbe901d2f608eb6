"""The status as an object for programs and as lines for people."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from entrypoint.status import Status


def as_json(status: "Status", now: float) -> dict[str, Any]:
    """Return the stable object of `ss-warp status --json`, /status and status.json."""
    healing = status.healing
    return {
        "state": status.state.value,
        "since": _time(status.since),
        "reason": status.reason,
        "warp": status.warp or None,
        "exit": {
            "ipv4": str(status.ipv4) if status.ipv4 else None,
            "ipv6": str(status.ipv6) if status.ipv6 else None,
        },
        "colo": status.colo or None,
        "implementation": status.implementation,
        "endpoint": str(status.endpoint) if status.endpoint else None,
        "reserved": ",".join(map(str, status.reserved)) if any(status.reserved) else None,
        "handshake_age": max(0, round(now - status.handshake)) if status.handshake else None,
        "rx_bytes": status.rx_bytes,
        "tx_bytes": status.tx_bytes,
        "account": {"kind": status.account or None},
        "shadowsocks": {
            "listening": sorted(map(str, status.listening)),
            "method": status.method or None,
            "users": list(status.users),
        },
        "healing": {"since": _time(healing.since), "rung": healing.rung or None, "tried": healing.tried}
        if healing
        else None,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_text(status: Mapping[str, Any]) -> str:
    """Return the object of `as_json` as lines for people."""
    exits = [address for address in status["exit"].values() if address]
    age = status["handshake_age"]
    offered = status["shadowsocks"]
    rows = {
        "state": f"{status['state']} since {status['since']}: {status['reason']}",
        "warp": f"{status['warp'] or 'unknown'}{f' at {status["colo"]}' if status['colo'] else ''}",
        "exit": ", ".join(exits) or "unknown",
        "tunnel": f"{status['implementation'] or 'no device'} to {status['endpoint'] or 'no endpoint'}",
        "reserved": status["reserved"] or "off",
        "handshake": "none" if age is None else f"{age} s ago",
        "traffic": f"{status['rx_bytes']} bytes received, {status['tx_bytes']} sent",
        "account": status["account"]["kind"] or "none",
        "shadowsocks": f"{offered['method'] or 'off'} on {', '.join(offered['listening']) or 'nothing'}",
    }
    if status["healing"]:
        rows["healing"] = f"{status['healing']['rung'] or 'waiting'}, {status['healing']['tried']} tried"
    return "\n".join(f"{name:12} {value}" for name, value in rows.items())
