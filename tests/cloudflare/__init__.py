"""The emulated Cloudflare: WARP's client API, its WireGuard edge, and a small internet behind it.

In a container:  python -m tests.cloudflare --config cloudflare.json   (prints "ready", ends on SIGTERM)
In a namespace:  with Cloudflare("lab-F", uplink="uplink", state=tmp_path) as cf: cf.calls()

It needs SYS_ADMIN, NET_ADMIN and /dev/net/tun. It makes anonymous network namespaces below the one it
runs in, so everything it made dies with its process:

    uplink ── F ──┬── D1  162.159.192.0/24 (wireguard-go, device 1), exit 104.28.0.1, 2a09:bac0::1
                  ├── D2  162.159.192.2                 device 2,     exit 104.28.0.2, 2a09:bac0::2
                  ├── …   every consumer device is 172.16.0.2, hence one namespace each
                  └── O   1.1.1.1, 104.16.132.229, … (the origin)
    The API's own addresses are on F itself.
"""

from tests.cloudflare.client import Cloudflare, Edge, Origin
from tests.cloudflare.config import (
    API_NAME,
    API_URL,
    BULK_PORT,
    ECHO_PORT,
    EDGE_PORTS,
    Config,
    bulk,
    bulk_sha256,
)
from tests.cloudflare.faults import (
    REMOVED,
    Fault,
    bomb,
    created_but_500,
    drip,
    elsewhere,
    empty,
    garbage,
    hang,
    html,
    huge,
    override,
    reset,
    stall,
    status,
    too_many,
    truncated,
    wrong_types,
)
from tests.cloudflare.seen import Call, DeviceSeen, Seen

__all__ = [
    "API_NAME",
    "API_URL",
    "BULK_PORT",
    "ECHO_PORT",
    "EDGE_PORTS",
    "REMOVED",
    "Call",
    "Cloudflare",
    "Config",
    "DeviceSeen",
    "Edge",
    "Fault",
    "Origin",
    "Seen",
    "bomb",
    "bulk",
    "bulk_sha256",
    "created_but_500",
    "drip",
    "elsewhere",
    "empty",
    "garbage",
    "hang",
    "html",
    "huge",
    "override",
    "reset",
    "stall",
    "status",
    "too_many",
    "truncated",
    "wrong_types",
]
