"""Containers' own networks: the engine's bridge is the provider, and publishes ports one to one."""

from dataclasses import replace

from tests.lab.machines.machine import Cable, Door, Far, Machine

BRIDGE = Machine(
    "bridge",
    "a container on Docker's bridge, IPv4 alone",
    cables=(Cable("eth0", ("172.18.0.2/16",), ("172.18.0.1/16",)),),
    lines=("route add default via 172.18.0.1",),
    nat={"5.9.40.10": "172.18.0.2"},
    families=(4,),
    far=(Far("172.18.0.3"),),
    doors=(Door("5.9.40.10"), Door("172.18.0.2", visitor="172.18.0.3")),
    modes=("own",),
    environment={"FIREWALL_INPUT_PORTS": "22/tcp"},
)
BRIDGE6 = replace(
    BRIDGE,
    name="bridge-ipv6",
    shape="the same, the network has IPv6 as well",
    cables=(Cable("eth0", ("172.18.0.2/16", "2a01:4f8:41::2/64"), ("172.18.0.1/16", "2a01:4f8:41::1/64")),),
    lines=("route add default via 172.18.0.1", "route add default via 2a01:4f8:41::1"),
    nat={"5.9.41.10": "172.18.0.2"},
    families=(4, 6),
    doors=(Door("5.9.41.10"), Door("2a01:4f8:41::2"), Door("172.18.0.2", visitor="172.18.0.3")),
)
DOCKER26 = replace(
    BRIDGE,
    name="docker-26",
    shape="Docker 26 and later: IPv6 is off on eth0 alone",
    nat={"5.9.42.10": "172.18.0.2"},
    doors=(Door("5.9.42.10"), Door("172.18.0.2", visitor="172.18.0.3")),
    sysctls={"ipv6__conf__eth0__disable_ipv6": 1},
)
TWO_NETWORKS = replace(
    BRIDGE,
    name="two-networks",
    shape="a second network, `internal: true`, where clients sit",
    cables=(
        Cable("eth0", ("172.18.0.2/16",), ("172.18.0.1/16",)),
        Cable("eth1", ("172.19.0.2/16",), ("172.19.0.1/16",)),
    ),
    nat={"5.9.43.10": "172.18.0.2"},
    far=(Far("172.18.0.3"), Far("172.19.0.3")),
    doors=(
        Door("5.9.43.10"),
        Door("172.18.0.2", visitor="172.18.0.3"),
        Door("172.19.0.2", visitor="172.19.0.3"),
    ),
)
WARPS_ADDRESS = replace(
    BRIDGE,
    name="bridge-172.16",
    shape="the first container of 172.16.0.0/24 has 172.16.0.2, WARP's own address",
    cables=(Cable("eth0", ("172.16.0.2/24",), ("172.16.0.1/24",)),),
    lines=("route add default via 172.16.0.1",),
    nat={"5.9.44.10": "172.16.0.2"},
    far=(Far("172.16.0.3"),),
    doors=(Door("5.9.44.10"), Door("172.16.0.2", visitor="172.16.0.3")),
)
