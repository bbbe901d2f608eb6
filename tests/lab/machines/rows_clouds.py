"""Machines as providers hand them out: addresses, gateways, private networks, resolvers."""

from dataclasses import replace

from tests.lab.machines.machine import Cable, Container, Door, Far, Machine, Published

DOCKER0 = ("link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up")
DOCKERS = """*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80
-A DOCKER ! -i docker0 -p udp -m udp --dport 8082 -j DNAT --to-destination 172.17.0.2:53
COMMIT
"""
"""What Docker's iptables rules do for a container with two published ports."""


def dockers(out: str) -> tuple[Container, ...]:
    """Return two containers on docker0, which the world sees by the address `out`."""
    gateway = ("route add default via 172.17.0.1",)
    return tuple(Container((f"172.17.0.{n}/16",), routes=gateway, out=out) for n in (2, 3))


def published(address: str) -> tuple[Published, ...]:
    return Published(address, 8081, "tcp"), Published(address, 8082, "udp")


PLAIN = Machine(
    "plain",
    "one NIC with a public address of each family, Docker",
    cables=(Cable("eth0", ("5.9.1.10/24", "2a01:4f8:1::10/64"), ("5.9.1.1/24", "2a01:4f8:1::1/64")),),
    lines=(*DOCKER0, "route add default via 5.9.1.1", "route add default via 2a01:4f8:1::1"),
    doors=(Door("5.9.1.10"), Door("2a01:4f8:1::10")),
    containers=dockers("5.9.1.10"),
    published=published("5.9.1.10"),
    iptables=DOCKERS,
)
HETZNER = Machine(
    "hetzner",
    "Hetzner Cloud: /32 and gateway off the link; private /32, the /16 behind a gateway",
    cables=(
        Cable("eth0", ("5.9.2.10/32", "2a01:4f8:2::1/64"), ("172.31.1.1/32", "fe80::1/64")),
        Cable("ens10", ("10.0.0.2/32",), ("10.0.0.1/32",)),
    ),
    lines=(
        *DOCKER0,
        "route add 172.31.1.1 dev eth0 scope link",
        "route add default via 172.31.1.1",
        "route add default via fe80::1 dev eth0",
        "route add 10.0.0.1 dev ens10 scope link",
        "route add 10.0.0.0/16 via 10.0.0.1 dev ens10",
    ),
    provider=(
        "route add 5.9.2.10 dev p-eth0",
        "route add 2a01:4f8:2::/64 via fe80::2 dev p-eth0",
        "route add 10.0.0.2 dev p-ens10",
    ),
    prepare="ip address add fe80::2/64 dev eth0 nodad",
    far=(Far("10.0.0.3"), Far("10.0.9.9"), Far("169.254.169.254", "platform")),
    doors=(
        Door("5.9.2.10"),
        Door("2a01:4f8:2::1"),
        Door("10.0.0.2", visitor="10.0.0.3", shadowsocks=False),
        Door("10.0.0.2", visitor="10.0.9.9", shadowsocks=False),
    ),
    containers=dockers("5.9.2.10"),
    published=published("5.9.2.10"),
    iptables=DOCKERS,
)
GCP = Machine(
    "gcp",
    "Google: a private /32, the VPC by the default route, one-to-one NAT",
    cables=(Cable("eth0", ("10.128.0.5/32",), ("10.128.0.1/32",)),),
    lines=(
        *DOCKER0,
        "route add 10.128.0.1 dev eth0 scope link",
        "route add default via 10.128.0.1 dev eth0 src 10.128.0.5",
    ),
    provider=("route add 10.128.0.5 dev p-eth0",),
    nat={"5.9.3.10": "10.128.0.5"},
    families=(4,),
    far=(Far("10.128.0.6"), Far("10.132.0.7"), Far("169.254.169.254", "platform")),
    doors=(
        Door("5.9.3.10"),
        Door("10.128.0.5", visitor="10.128.0.6"),
        Door("10.128.0.5", visitor="10.132.0.7"),
    ),
    containers=dockers("5.9.3.10"),
    published=published("5.9.3.10"),
    iptables=DOCKERS,
)


def aws(name: str, shape: str, number: int, priority: str) -> Machine:
    """Return a machine with two ENIs, the second's source rule with or without a number."""
    return Machine(
        name,
        shape,
        cables=(
            Cable("eth0", ("172.31.5.10/20",), ("172.31.0.1/20",)),
            Cable("eth1", ("172.31.20.10/20",), ("172.31.16.1/20",)),
        ),
        lines=(
            *DOCKER0,
            "route add default via 172.31.0.1 dev eth0 metric 100",
            "route add default via 172.31.16.1 dev eth1 table 101",
            f"rule add from 172.31.20.10 lookup 101{priority}",
        ),
        nat={f"5.9.{number}.10": "172.31.5.10", f"5.9.{number}.11": "172.31.20.10"},
        sysctls={"ipv4__conf__all__rp_filter": 2},
        families=(4,),
        far=(
            Far("172.31.32.7"),
            Far("172.31.0.2", "platform"),
            Far("169.254.169.253", "platform"),
            Far("169.254.169.254", "platform"),
        ),
        doors=(
            Door(f"5.9.{number}.10"),
            Door(f"5.9.{number}.11"),
            Door("172.31.5.10", visitor="172.31.32.7"),
            Door("172.31.20.10", visitor="172.31.32.7"),
        ),
        containers=dockers(f"5.9.{number}.10"),
        published=published(f"5.9.{number}.10"),
        iptables=DOCKERS,
    )


AWS = aws("aws", "AWS: two ENIs in 172.16/12, source rule 10001, resolver in the VPC", 4, " priority 10001")
AWS_UNNUMBERED = aws("aws-unnumbered", "the same, the source rule without a number", 5, "")
AZURE = Machine(
    "azure",
    "Azure: resolver and agent at the public address 168.63.129.16, a peered network by the default route",
    cables=(Cable("eth0", ("10.0.0.4/24",), ("10.0.0.1/24",)),),
    lines=(
        *DOCKER0,
        "route add default via 10.0.0.1 dev eth0",
        "route add 168.63.129.16 via 10.0.0.1 dev eth0",
        "route add 169.254.169.254 via 10.0.0.1 dev eth0",
    ),
    nat={"5.9.6.10": "10.0.0.4"},
    families=(4,),
    far=(
        Far("10.0.0.7"),
        Far("10.1.0.7"),
        Far("168.63.129.16", "platform"),
        Far("169.254.169.254", "platform"),
    ),
    doors=(Door("5.9.6.10"), Door("10.0.0.4", visitor="10.0.0.7"), Door("10.0.0.4", visitor="10.1.0.7")),
    containers=dockers("5.9.6.10"),
    published=published("5.9.6.10"),
    iptables=DOCKERS,
)
ORACLE = Machine(
    "oracle",
    "Oracle: boot volume and resolver in 169.254/16, INPUT ends with REJECT",
    cables=(Cable("eth0", ("10.0.0.5/24",), ("10.0.0.1/24",)),),
    lines=(
        *DOCKER0,
        "route add default via 10.0.0.1 dev eth0",
        "route add 169.254.0.0/16 dev eth0 scope link",
    ),
    nat={"5.9.7.10": "10.0.0.5"},
    families=(4,),
    far=(Far("10.0.0.8"), Far("169.254.0.2", "platform"), Far("169.254.169.254", "platform")),
    doors=(Door("5.9.7.10"), Door("10.0.0.5", visitor="10.0.0.8")),
    containers=dockers("5.9.7.10"),
    published=published("5.9.7.10"),
    iptables=DOCKERS
    + """*filter
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m multiport --dports 22,8388 -j ACCEPT
-A INPUT -p udp --dport 8388 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A OUTPUT -d 169.254.0.2/32 -p tcp -m owner ! --uid-owner 0 -j REJECT --reject-with tcp-reset
COMMIT
""",
)
OVH = Machine(
    "ovh",
    "OVH: /32 and /128, gateways off the link, an address that moves between servers",
    cables=(
        Cable(
            "eth0",
            ("5.9.8.10/32", "5.9.208.10/32", "2a01:4f8:8::10/128"),
            ("5.9.18.254/32", "2a01:4f8:8ff:ff:ff:ff:ff:ff/128"),
        ),
    ),
    lines=(
        *DOCKER0,
        "route add 5.9.18.254 dev eth0",
        "route add default via 5.9.18.254",
        "route add 2a01:4f8:8ff:ff:ff:ff:ff:ff dev eth0",
        "route add default via 2a01:4f8:8ff:ff:ff:ff:ff:ff",
    ),
    provider=(
        "route add 5.9.8.10 dev p-eth0",
        "route add 5.9.208.10 dev p-eth0",
        "route add 2a01:4f8:8::10 dev p-eth0",
    ),
    doors=(Door("5.9.8.10"), Door("5.9.208.10"), Door("2a01:4f8:8::10")),
    containers=dockers("5.9.8.10"),
    published=published("5.9.208.10"),
    iptables=DOCKERS,
)
RESOLVER = replace(
    PLAIN,
    name="resolver",
    shape="a provider's resolver at a public address, for its own customers",
    resolvers=("185.12.64.1", "2a01:4ff:ff00::add:1"),
    far=(Far("185.12.64.1", "platform"), Far("2a01:4ff:ff00::add:1", "platform")),
    warned={("full", "platform"): "list them in FIREWALL_OUTBOUND_SUBNETS"},
)
RESOLVER_NAMED = replace(
    RESOLVER,
    name="resolver, named",
    shape="the same with the resolvers in FIREWALL_OUTBOUND_SUBNETS",
    modes=("full",),
    environment={"FIREWALL_OUTBOUND_SUBNETS": "185.12.64.1/32,2a01:4ff:ff00::add:1/128"},
    warned={},
)
TAKEN = Machine(
    "vpc-172.16",
    "a VPC 172.16.0.0/16 whose resolver is 172.16.0.2, WARP's own address",
    cables=(Cable("eth0", ("172.16.5.10/20",), ("172.16.0.1/20",)),),
    lines=(*DOCKER0, "route add default via 172.16.0.1 dev eth0"),
    nat={"5.9.29.10": "172.16.5.10"},
    families=(4,),
    far=(Far("172.16.0.7"), Far("172.16.0.2", "platform"), Far("169.254.169.254", "platform")),
    doors=(Door("5.9.29.10"), Door("172.16.5.10", visitor="172.16.0.7")),
    containers=dockers("5.9.29.10"),
    published=published("5.9.29.10"),
    iptables=DOCKERS,
)
