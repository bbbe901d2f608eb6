"""Which WireGuard carries the packets by default: the kernel's where it has one, else userspace."""

from pathlib import Path

import pytest

from tests.lab.product import Product
from tests.lab.topology import IMPLEMENTATION, Lab

pytestmark = [pytest.mark.lab, pytest.mark.vm]


def test_auto_takes_the_kernel_where_it_can_and_says_so(lab: Lab, tmp_path: Path) -> None:
    """iproute2 tells what this kernel can do; in the emulated machine it must have WireGuard."""
    kernel = lab.run("R", ["ip", "link", "add", "probe", "type", "wireguard"], check=False).returncode == 0
    assert kernel or IMPLEMENTATION != "kernel"
    expected = "kernel" if kernel else "userspace"
    environment = {"WIREGUARD_IMPLEMENTATION": "auto", "SHADOWSOCKS": "off"}
    with Product(lab, tmp_path / "state", environment=environment) as product:
        product.said(f"brought up wg0 ({expected})")
        assert product.reached("connected")["implementation"] == expected
        assert len(product.children("ss-warp-wireguard")) == (0 if kernel else 1)
        assert ("using ss-warp-wireguard" in product.log) is not kernel
        assert product.stop() == 0
