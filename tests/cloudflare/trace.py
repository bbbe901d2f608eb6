"""The trace: sixteen lines about a request, `warp=` from where its packets really came."""

import re
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Visit:
    """What the trace tells: `host` as asked, `tls` a protocol's name or `off`, `warp` off, on or plus."""

    host: str
    source: str
    agent: str
    tls: str
    warp: str


def trace(visit: Visit, *, at: float | None = None) -> bytes:
    """Return the page's text; `at` in seconds since 1970."""
    secure = visit.tls != "off"
    host = visit.host.rpartition(":")[0] if re.search(r"[^:]:\d+$|\]:\d+$", visit.host) else visit.host
    by_address = host.startswith("[") or re.fullmatch(r"[\d.]+", host) is not None
    lines = {
        "fl": "000f000",
        "h": host,
        "ip": visit.source,
        "ts": f"{time.time() if at is None else at:.3f}",
        "visit_scheme": "https" if secure else "http",
        "uag": visit.agent,
        "colo": "FRA",
        "sliver": "none",
        "http": "http/1.1",
        "loc": "DE",
        "tls": visit.tls,
        "sni": "plaintext" if secure and not by_address else "off",
        "warp": visit.warp,
        "gateway": "off",
        "rbi": "off",
        "kex": "X25519" if secure else "none",
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items()).encode()
