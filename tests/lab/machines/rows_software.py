"""Machines that are particular by what runs on them: routers, VPNs, firewalls, hypervisors, clusters."""

from dataclasses import replace

from tests.lab.machines.machine import Cable, Container, Door, Far, Machine, Marked, Multicast, Published
from tests.lab.machines.rows_clouds import DOCKER0, DOCKERS, dockers, published


def plain(name: str, shape: str, number: int, **more: object) -> Machine:
    """Return a machine with one NIC, an address of each family and Docker; `lines` come after the rest."""
    four, six = f"5.9.{number}.", f"2a01:4f8:{number}::"
    lines: tuple[str, ...] = (*DOCKER0, f"route add default via {four}1", f"route add default via {six}1")
    made = Machine(
        name,
        shape,
        cables=(Cable("eth0", (f"{four}10/24", f"{six}10/64"), (f"{four}1/24", f"{six}1/64")),),
        lines=(*lines, *more.pop("lines", ())),  # type: ignore[misc]
        doors=(Door(f"{four}10"), Door(f"{six}10")),
        containers=dockers(f"{four}10"),
        published=published(f"{four}10"),
        iptables=DOCKERS,
    )
    return replace(made, **more)  # type: ignore[arg-type]


PROXMOX = Machine(
    "proxmox",
    "Proxmox: virtual machines with public addresses from a routed prefix",
    cables=(
        Cable(
            "eth0",
            ("5.9.9.10/32", "2a01:4f8:9::2/128"),
            ("5.9.9.1/32", "fe80::1/64"),
            more=("5.9.109.0/28", "2a01:4f8:9:1::/64"),
        ),
    ),
    lines=(
        "link add vmbr1 type bridge",
        "address add 5.9.109.1/28 dev vmbr1",
        "address add 2a01:4f8:9:1::1/64 dev vmbr1 nodad",
        "address add fe80::2/64 dev eth0 nodad",
        "link set vmbr1 up",
        "route add 5.9.9.1 dev eth0",
        "route add default via 5.9.9.1",
        "route add default via fe80::1 dev eth0",
    ),
    provider=(
        "route add 5.9.9.10 dev p-eth0",
        "route add 5.9.109.0/28 via 5.9.9.10 dev p-eth0",
        "route add 2a01:4f8:9::/64 via fe80::2 dev p-eth0",
        "route add 2a01:4f8:9:1::/64 via fe80::2 dev p-eth0",
    ),
    sysctls={"ipv6__conf__all__forwarding": 1},
    doors=(Door("5.9.9.10"), Door("2a01:4f8:9::2"), Door("5.9.109.1", shadowsocks=False)),
    containers=tuple(
        Container(
            (f"5.9.109.{n}/28", f"2a01:4f8:9:1::{n}/64"),
            bridge="vmbr1",
            routes=("route add default via 5.9.109.1", "route add default via 2a01:4f8:9:1::1"),
            out=f"5.9.109.{n}",
        )
        for n in (2, 3)
    ),
    published=(
        Published("5.9.109.2", 80, "tcp"),
        Published("2a01:4f8:9:1::2", 80, "tcp"),
        Published("2a01:4f8:9:1::3", 80, "tcp"),
    ),
)
DOCKER_PUBLIC = plain(
    "docker-public",
    "Docker with a routed IPv6 prefix",
    10,
    lines=("address add 2a01:4f8:10:1::1/64 dev docker0 nodad",),
    provider=("route add 2a01:4f8:10:1::/64 via 2a01:4f8:10::10",),
    sysctls={"ipv6__conf__all__forwarding": 1},
    containers=tuple(
        Container(
            (f"172.17.0.{n}/16", f"2a01:4f8:10:1::{n}/64"),
            routes=("route add default via 172.17.0.1", "route add default via 2a01:4f8:10:1::1"),
            out=f"2a01:4f8:10:1::{n}",
        )
        for n in (2, 3)
    ),
    published=(*published("5.9.10.10"), Published("2a01:4f8:10:1::2", 80, "tcp")),
)
DOCKER_PUBLIC = replace(
    DOCKER_PUBLIC, cables=(replace(DOCKER_PUBLIC.cables[0], more=("2a01:4f8:10:1::/64",)),)
)
FLANNEL = "type vxlan id 1 dstport 8472 local {} remote {}"
OVERLAY = plain(
    "overlay",
    "k3s, Docker Swarm: VXLAN between public addresses",
    11,
    lines=(
        f"link add flannel.1 {FLANNEL.format('5.9.11.10', '5.9.111.20')}",
        "address add 10.42.0.1/32 dev flannel.1",
        "link set flannel.1 up",
        "route add 10.42.1.0/24 dev flannel.1",
    ),
    provider=(
        "address add 5.9.111.20/32 dev lo",
        f"link add flannel.1 {FLANNEL.format('5.9.111.20', '5.9.11.10')}",
        "link set flannel.1 up",
        "address add 10.42.1.5/32 dev flannel.1",
        "route add 10.42.0.0/24 dev flannel.1",
    ),
    far=(Far("10.42.1.5", device="flannel.1"),),
    doors=(
        Door("5.9.11.10"),
        Door("2a01:4f8:11::10"),
        Door("10.42.0.1", visitor="10.42.1.5", shadowsocks=False),
    ),
    peers=("5.9.111.20",),
)
KEEPALIVED = plain(
    "keepalived",
    "keepalived and OSPF: multicast on the link, a virtual address",
    12,
    lines=("address add 5.9.12.100/32 dev eth0",),
    provider=("route add 5.9.12.100 via 5.9.12.10",),
    doors=(Door("5.9.12.10"), Door("5.9.12.100"), Door("2a01:4f8:12::10")),
    multicast=(
        Multicast(112, "224.0.0.18"),
        Multicast(89, "224.0.0.5"),
        Multicast(112, "ff02::12"),
        Multicast(89, "ff02::5"),
    ),
)
KEEPALIVED = replace(KEEPALIVED, cables=(replace(KEEPALIVED.cables[0], more=("5.9.12.100",)),))
NEXTHOPS = plain(
    "nexthops",
    "FRR: nexthop objects, nexthop_compat_mode=0, ignore_routes_with_linkdown",
    14,
    lines=(
        "route del default",
        "-6 route del default",
        "nexthop add id 10 via 5.9.14.1 dev eth0",
        "nexthop add id 11 via 2a01:4f8:14::1 dev eth0",
        "route add default nhid 10",
        "-6 route add default nhid 11",
    ),
    sysctls={
        "ipv4__nexthop_compat_mode": 0,
        **{
            f"ipv{family}__conf__{which}__ignore_routes_with_linkdown": 1
            for family in (4, 6)
            for which in ("all", "default")
        },
    },
)
VRF = plain(
    "vrf",
    "a second NIC in a VRF, services across",
    15,
    cables=(
        Cable("eth0", ("5.9.15.10/24",), ("5.9.15.1/24",)),
        Cable("eth1", ("10.7.0.7/24",), ("10.7.0.1/24",)),
    ),
    lines=(
        "-6 route del default",
        "link add blue type vrf table 77",
        "link set blue up",
        "link set eth1 master blue",
        "route add default via 10.7.0.1 table 77",
    ),
    sysctls={"ipv4__tcp_l3mdev_accept": 1},
    nat={"5.9.115.10": "10.7.0.7"},
    families=(4,),
    doors=(Door("5.9.15.10"), Door("5.9.115.10", shadowsocks=False)),
    needs=("vrf table 77",),
    refused={"full": "this host has a VRF (blue)"},
)
NETBIRD = plain(
    "netbird",
    "NetBird: what lacks its mark uses its table",
    16,
    lines=(
        "rule add priority 105 lookup main suppress_prefixlength 0",
        "rule add priority 110 not fwmark 0x1bd00 lookup 7120",
        "route add 100.92.0.0/16 dev docker0 table 7120",
    ),
    marked=(Marked(0x1BD00, direct=True),),
)
TAILSCALE = plain(
    "tailscale",
    "Tailscale: rules 5210 to 5270, its own packets by main",
    17,
    lines=(
        "rule add fwmark 0x80000/0xff0000 lookup main priority 5210",
        "rule add fwmark 0x80000/0xff0000 lookup default priority 5230",
        "rule add fwmark 0x80000/0xff0000 unreachable priority 5250",
        "rule add lookup 52 priority 5270",
        "route add 100.100.0.0/24 dev docker0 table 52",
    ),
    marked=(Marked(0x80000, direct=True),),
)
MIHOMO = plain(
    "mihomo",
    "mihomo: mark 6666, which has our bit, without any rule",
    18,
    marked=(Marked(6666, direct=False),),
)
FIREWALLD = plain(
    "firewalld",
    "firewalld: IPv6_rpfilter=strict, what is not open is rejected",
    19,
    nft="""table inet firewalld {
chain filter_PREROUTING { type filter hook prerouting priority filter + 10; policy accept;
icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
meta nfproto ipv6 fib saddr . mark . iif oif missing drop
}
chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
ct state { established, related } accept
ct status dnat accept
iifname "lo" accept
ct state invalid drop
meta l4proto { icmp, icmpv6 } accept
th dport { 22, 8388 } accept
reject with icmpx admin-prohibited
}
}
""",
)
UFW_RULES = """iptables -P INPUT DROP
iptables -F INPUT
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A INPUT -p icmp -j ACCEPT
iptables -A INPUT -p tcp --dport 22 -j ACCEPT
iptables -A INPUT -p tcp --dport 8388 -j ACCEPT
iptables -A INPUT -p udp --dport 8388 -j ACCEPT
"""
UFW = plain("ufw", "ufw, reloaded while ss-warp runs", 20, prepare=UFW_RULES, meanwhile=UFW_RULES)
NOTRACK = plain(
    "notrack",
    "SSH and DNS that are not tracked",
    21,
    nft="""table inet untracked {
chain in { type filter hook prerouting priority raw; policy accept;
tcp dport 22 notrack
udp dport 53 notrack
}
chain out { type filter hook output priority raw; policy accept;
tcp sport 22 notrack
udp sport 53 notrack
}
}
""",
    published=(Published("5.9.21.10", 53, "udp"), Published("2a01:4f8:21::10", 53, "udp")),
    environment={"FIREWALL_INPUT_PORTS": "53/udp"},
)
IPV6_ONLY = Machine(
    "ipv6-only",
    "no IPv4 except on lo",
    cables=(Cable("eth0", ("2a01:4f8:22::10/64",), ("2a01:4f8:22::1/64",)),),
    lines=("route add default via 2a01:4f8:22::1",),
    doors=(Door("2a01:4f8:22::10"),),
    families=(6,),
)
IPV4_ONLY = Machine(
    "ipv4-only",
    "only link-local IPv6 addresses",
    cables=(Cable("eth0", ("5.9.23.10/24",), ("5.9.23.1/24",)),),
    lines=(*DOCKER0, "route add default via 5.9.23.1"),
    doors=(Door("5.9.23.10"),),
    families=(4,),
    containers=dockers("5.9.23.10"),
    published=published("5.9.23.10"),
    iptables=DOCKERS,
)
IPV6_OFF = replace(
    IPV4_ONLY,
    name="ipv6-off",
    shape="IPv6 off by default and everywhere except on lo",
    cables=(Cable("eth0", ("5.9.24.10/24",), ("5.9.24.1/24",)),),
    lines=(*DOCKER0, "route add default via 5.9.24.1"),
    doors=(Door("5.9.24.10"),),
    sysctls={
        "ipv6__conf__all__disable_ipv6": 1,
        "ipv6__conf__default__disable_ipv6": 1,
        "ipv6__conf__lo__disable_ipv6": 0,
    },
    containers=dockers("5.9.24.10"),
    published=published("5.9.24.10"),
)
CLOUD_INIT = Machine(
    "cloud-init",
    "cloud-init: a default route and policy rules for each NIC",
    cables=(
        Cable("eth0", ("5.9.25.10/24", "2a01:4f8:25::10/64"), ("5.9.25.1/24", "2a01:4f8:25::1/64")),
        Cable("eth1", ("10.1.25.10/24",), ("10.1.25.1/24",)),
    ),
    lines=(
        *DOCKER0,
        "route add default via 5.9.25.1 dev eth0 metric 100",
        "route add default via 2a01:4f8:25::1 dev eth0 metric 100",
        "route add default via 10.1.25.1 dev eth1 metric 200",
        "route add default via 10.1.25.1 dev eth1 table 1001",
        "route add 10.1.25.0/24 dev eth1 table 1001",
        "rule add from 10.1.25.10 lookup 1001 priority 100",
        "rule add to 10.1.25.0/24 lookup 1001 priority 101",
    ),
    nat={"5.9.125.10": "10.1.25.10"},
    far=(Far("10.1.25.7"),),
    doors=(
        Door("5.9.25.10"),
        Door("2a01:4f8:25::10"),
        Door("5.9.125.10"),
        Door("10.1.25.10", visitor="10.1.25.7"),
    ),
    containers=dockers("5.9.25.10"),
    published=published("5.9.25.10"),
    iptables=DOCKERS,
)
PODS = range(1, 44)
POD_ROUTES = tuple(f"route add 10.42.7.{n} dev vn1 scope link" for n in PODS)
CALICO = Machine(
    "pods",
    "Calico: 43 pods with a /32 each, that come and go",
    cables=(Cable("eth0", ("5.9.26.10/24", "2a01:4f8:26::10/64"), ("5.9.26.1/24", "2a01:4f8:26::1/64")),),
    lines=("route add default via 5.9.26.1", "route add default via 2a01:4f8:26::1", *POD_ROUTES),
    doors=(Door("5.9.26.10"), Door("2a01:4f8:26::10")),
    containers=(
        Container(
            tuple(f"10.42.7.{n}/32" for n in PODS),
            bridge="",
            routes=("route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1 src 10.42.7.1"),
            out="5.9.26.10",
            asked=("10.42.7.1", "10.42.7.43"),
        ),
    ),
    sysctls={"ipv4__conf__vn1__proxy_arp": 1},
    iptables="*nat\n-A POSTROUTING -s 10.42.7.0/24 ! -d 10.42.7.0/24 -j MASQUERADE\nCOMMIT\n",
    meanwhile="; ".join(f"ip {line.replace(' add ', ' del ')}; ip {line}" for line in POD_ROUTES),
)
SIT = plain(
    "6in4",
    "Hurricane Electric: IPv6 through a 6in4 tunnel",
    32,
    cables=(Cable("eth0", ("5.9.32.10/24",), ("5.9.32.1/24",)),),
    lines=(
        "-6 route del default",
        "link add he6 type sit local 5.9.32.10 remote 5.9.132.1",
        "address add 2a01:4f8:32::10/64 dev he6 nodad",
        "link set he6 up",
        "-6 route add default dev he6",
    ),
    provider=(
        "address add 5.9.132.1/32 dev lo",
        "link add he6 type sit local 5.9.132.1 remote 5.9.32.10",
        "address add 2a01:4f8:32::1/64 dev he6 nodad",
        "link set he6 up",
    ),
    peers=("5.9.132.1",),
    needs=("sit local 127.0.0.1 remote 127.0.0.2",),
)
GRE = plain(
    "gre",
    "a private network behind a GRE tunnel",
    33,
    lines=(
        "link add gre7 type gre local 5.9.33.10 remote 5.9.133.1",
        "address add 10.99.0.1/30 dev gre7",
        "link set gre7 up",
        "route add 10.98.0.0/16 via 10.99.0.2",
    ),
    provider=(
        "address add 5.9.133.1/32 dev lo",
        "link add gre7 type gre local 5.9.133.1 remote 5.9.33.10",
        "address add 10.99.0.2/30 dev gre7",
        "link set gre7 up",
    ),
    far=(Far("10.98.0.7"),),
    doors=(
        Door("5.9.33.10"),
        Door("2a01:4f8:33::10"),
        Door("10.99.0.1", visitor="10.98.0.7", shadowsocks=False),
    ),
    peers=("5.9.133.1",),
    needs=("gre local 127.0.0.1 remote 127.0.0.2",),
)
