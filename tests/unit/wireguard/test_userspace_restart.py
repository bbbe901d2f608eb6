"""What needs a new engine, and what does not: the TUN stays either way."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from entrypoint.addresses import Endpoint
from entrypoint.linux.kernel_objects import Guise
from entrypoint.wireguard.userspace import encode_uapi
from tests.fakes.bench import CONFIG, Bench, bench_in

OTHER = replace(CONFIG, endpoint=Endpoint(ip_address("162.159.192.1"), 500))
OTHER_BYTES = replace(CONFIG, guise=Guise(b"\1\2\3"))
OTHER_FAMILY = replace(CONFIG, endpoint=Endpoint(ip_address("2606:4700:d0::1"), 2408))


@pytest.fixture
def bench(tmp_path: Path, anyio_backend: str) -> Bench:
    return bench_in(tmp_path)


@pytest.mark.anyio
async def test_an_endpoint_of_another_family_is_set_like_any_other(bench: Bench) -> None:
    async with bench.kept() as device:
        before = bench.links.links["wg0"]
        for config in OTHER, OTHER_FAMILY, OTHER_FAMILY, CONFIG:
            await device.configure(config)
            await bench.clock.sleep(0.1)
            assert len(bench.processes.children) == 1
            assert bench.engine().requests[-1] == encode_uapi(config)
        assert bench.processes.alive() == ["ss-warp-wireguard"]
        assert bench.links.links["wg0"] == before
        assert bench.reports == []
        bench.engine().kill()
        await bench.clock.sleep(0.1)
        assert bench.reports == ["restarted"]


@pytest.mark.anyio
async def test_a_new_engine_that_does_not_start_is_tried_by_the_next_configuration(bench: Bench) -> None:
    async with bench.kept() as device:
        bench.processes.refuse["ss-warp-wireguard"] = "not now"
        with pytest.raises(OSError, match="not now"):
            await device.configure(OTHER_BYTES)
        del bench.processes.refuse["ss-warp-wireguard"]
        await device.configure(OTHER_BYTES)
        assert bench.engine().requests == [encode_uapi(OTHER_BYTES)]


@pytest.mark.anyio
async def test_no_engine_is_started_without_the_link(bench: Bench) -> None:
    async with bench.kept() as device:
        bench.links.delete("wg0")
        with pytest.raises(OSError, match="No such device"):
            await device.configure(OTHER_BYTES)
        assert len(bench.processes.children) == 1
