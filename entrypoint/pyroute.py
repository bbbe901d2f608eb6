"""pyroute2 without the rest of pyroute2: its package imports all it has, 200 ms and 5 MB that nobody needs.

A module of that name with nothing but the path stands in for the package; its submodules are the
real ones. Everybody here imports them from this module.
"""

import sys
from importlib.util import find_spec
from types import ModuleType


def _bare_package(name: str) -> None:
    if name not in sys.modules:
        spec = find_spec(name)
        bare = ModuleType(name)
        bare.__spec__ = spec
        bare.__path__ = list(spec.submodule_search_locations or ()) if spec else []
        sys.modules[name] = bare


_bare_package("pyroute2")

from pyroute2.iproute.linux import AsyncIPRoute  # noqa: E402
from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402
from pyroute2.netlink.generic import wireguard  # noqa: E402
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: E402

# Its list ends at 23; by the next (linux/rtnetlink.h) a route is asked for as somebody else, and by ports.
rtmsg.nla_map = (
    *rtmsg.nla_map,
    ("RTA_PAD", "hex"),
    ("RTA_UID", "uint32"),
    ("RTA_TTL_PROPAGATE", "uint8"),
    ("RTA_IP_PROTO", "uint8"),
    ("RTA_SPORT", "be16"),
    ("RTA_DPORT", "be16"),
)

__all__ = [
    "NLM_F_ACK",
    "NLM_F_DUMP",
    "NLM_F_DUMP_INTR",
    "NLM_F_REQUEST",
    "AsyncIPRoute",
    "NetlinkError",
    "wireguard",
]
