"""The table of machines."""

from tests.lab.machines import rows_clouds as clouds
from tests.lab.machines import rows_containers as containers
from tests.lab.machines import rows_software as software
from tests.lab.machines.machine import Machine

MACHINES: tuple[Machine, ...] = (
    *(clouds.PLAIN, clouds.HETZNER, clouds.GCP, clouds.AWS, clouds.AWS_UNNUMBERED, clouds.AZURE),
    *(clouds.ORACLE, clouds.OVH, clouds.TAKEN),
    *(software.PROXMOX, software.DOCKER_PUBLIC, software.OVERLAY),
    *(software.KEEPALIVED, software.NEXTHOPS, software.NETBIRD, software.TAILSCALE, software.FIREWALLD),
    *(software.UFW, software.NOTRACK, software.IPV6_ONLY, software.IPV4_ONLY, software.IPV6_OFF),
    *(software.MIHOMO, software.CLOUD_INIT, software.CALICO, software.VRF, software.SIT, software.GRE),
    *(clouds.RESOLVER, clouds.RESOLVER_NAMED),
    *(containers.BRIDGE, containers.BRIDGE6, containers.DOCKER26),
    *(containers.TWO_NETWORKS, containers.WARPS_ADDRESS),
)
