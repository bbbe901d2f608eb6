"""A server that does other work: the standard lab, and in H what people have on their hosts.

H  eth0   203.0.113.7, .8 (secondary), 2001:db8:7::7, ::8, and a privacy address
   eth1   198.18.7.7 behind R as well; its own table 101 by a source rule at 10001
   docker0 172.17.0.1 ── N1 172.17.0.2 (published tcp 8081 -> 80), N2 172.17.0.3 (udp 8082 -> 53)
          by the same iptables rules that Docker makes
   tcp 22 on [::]: speaks first and does not stop; udp 5005 on [::], a wildcard socket
F  (the internet) answers echoes and says who asked
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import cast

from tests.cloudflare.netns import Namespace, run
from tests.lab.product import eventually
from tests.lab.services import Service, served
from tests.lab.topology import Lab, Place

SSH, UDP, TCP_PUBLISHED, UDP_PUBLISHED = 22, 5005, 8081, 8082
SECOND_NIC = IPv4Address("198.18.7.7")
ADDRESSES: tuple[IPv4Address | IPv6Address, ...] = tuple(
    map(ip_address, ("203.0.113.7", "203.0.113.8", "198.18.7.7", "2001:db8:7::7", "2001:db8:7::8"))
)
ON_ETH0 = ("address add 203.0.113.8/24 dev eth0", "address add 2001:db8:7::8/64 dev eth0 nodad")
ETH1 = (
    "link set eth1 up",
    "address add 198.18.7.7/24 dev eth1",
    "route add default via 198.18.7.1 dev eth1 table 101",
    "rule add from 198.18.7.7 lookup 101 priority 10001",
)
BRIDGE = ("link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up")
DOCKERS = """*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80
-A DOCKER ! -i docker0 -p udp -m udp --dport 8082 -j DNAT --to-destination 172.17.0.3:53
COMMIT
"""
SERVICES = (
    Service("H", "tcp", SSH),
    Service("H", "udp", UDP),
    Service("N1", "tcp", 80),
    Service("N2", "udp", 53),
)
DUMPS = (
    ["ip", "-4", "rule"],
    ["ip", "-6", "rule"],
    ["ip", "-4", "route", "show", "table", "all"],
    ["ip", "-6", "route", "show", "table", "all"],
    ["ip", "-j", "address"],
    ["nft", "-s", "list", "ruleset"],
    ["sh", "-c", "sysctl -a 2>/dev/null | grep -E '^net.ipv[46].(conf|ip_forward)'"],
)
REDIRECTS = "net.ipv4.conf.all.send_redirects"
"""The kernel's WireGuard turns it off once it is up, for good. Each interface's own still counts."""

WAVERING = ("valid_life_time", "preferred_life_time", "stats64")
"""What changes by itself, or with traffic."""


@contextmanager
def host_lab(state: Path, *, containers: bool = True) -> Iterator[Lab]:
    """Yield the lab, built. Without `containers` conntrack sleeps until a rule needs it."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(state))
        host = Namespace.named(lab.name("H"))
        stack.callback(host.close)
        cable = ["link", "add", "eth1", "type", "veth", "peer", "name", "to-h2", "netns", lab.name("R")]
        run("ip", "-n", lab.name("H"), *cable)
        router = ("link set to-h2 up", "address add 198.18.7.1/24 dev to-h2")
        run("ip", "-n", lab.name("R"), "-batch", "-", text="\n".join(router) + "\n")
        run("ip", "-n", lab.name("F"), "route", "add", "198.18.7.0/24", "via", "192.0.2.1")
        host.ip(*ON_ETH0, *ETH1)
        host.sysctl(ipv6__conf__eth0__use_tempaddr=2)
        host.ip("address add 2001:db8:7::100/64 dev eth0 mngtmpaddr nodad")
        if containers:
            host.ip(*BRIDGE)
            host.sysctl(ipv4__ip_forward=1)
            for number in (1, 2):
                _neighbour(lab, stack, number)
            lab.run("H", ["iptables-restore"], text=DOCKERS)
        stack.enter_context(served(lab, SERVICES if containers else SERVICES[:2]))
        yield lab


def _neighbour(lab: Lab, stack: ExitStack, number: int) -> None:
    name = lab.name(cast("Place", f"N{number}"))
    run("ip", "netns", "add", name)
    stack.callback(run, "ip", "netns", "del", name)
    port = f"veth{number}"
    run("ip", "-n", lab.name("H"), "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
    run("ip", "-n", lab.name("H"), "link", "set", port, "master", "docker0", "up")
    lines = ["link set lo up", "link set eth0 up", f"address add 172.17.0.{number + 1}/16 dev eth0"]
    lines.append("route add default via 172.17.0.1")
    run("ip", "-n", name, "-batch", "-", text="\n".join(lines) + "\n")


def privacy_address(lab: Lab) -> str:
    """Return H's temporary IPv6 address."""

    def found() -> str:
        links = json.loads(lab.run("H", ["ip", "-j", "-6", "address", "show", "dev", "eth0"]).stdout)
        return next((str(one["local"]) for one in links[0]["addr_info"] if one.get("temporary")), "")

    return eventually(found, "a privacy address")


def dump(lab: Lab, place: Place = "H") -> list[str]:
    """Return everything that a stop must leave as it was."""
    lines = []
    for argv in DUMPS:
        text = lab.run(place, argv).stdout
        if "-j" in argv:
            text = "\n".join(sorted(map(_steady, json.loads(text))))
        lines += [f"{' '.join(argv[:3])}: {line}" for line in text.splitlines()]
    # Only a kernel that has WireGuard may do that.
    return [one for one in lines if REDIRECTS not in one or not Path("/sys/module/wireguard").exists()]


def _steady(link: dict[str, object]) -> str:
    parts = cast("list[dict[str, object]]", link["addr_info"])
    kept = [{name: value for name, value in one.items() if name not in WAVERING} for one in parts]
    return json.dumps(
        {"ifname": link["ifname"], "mtu": link["mtu"], "flags": link["flags"], "addresses": kept}
    )
