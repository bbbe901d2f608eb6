"""An endpoint of another family: wireguard-go must be a new process, the TUN must stay."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from entrypoint.addresses import Endpoint
from entrypoint.wireguard.userspace import encode_uapi
from tests.fakes.bench import CONFIG, Bench, bench_in

OTHER = replace(CONFIG, endpoint=Endpoint(ip_address("162.159.192.1"), 500))
OTHER_FAMILY = replace(CONFIG, endpoint=Endpoint(ip_address("2606:4700:d0::1"), 2408))


@pytest.fixture
def bench(tmp_path: Path, anyio_backend: str) -> Bench:
    return bench_in(tmp_path)


@pytest.mark.anyio
async def test_an_endpoint_of_another_family_gets_a_new_engine_on_the_same_link(bench: Bench) -> None:
    async with bench.kept() as device:
        before = bench.links.links["wg0"]
        for config, engines in ((OTHER, 1), (OTHER_FAMILY, 2), (OTHER_FAMILY, 2), (CONFIG, 3)):
            await device.configure(config)
            await bench.clock.sleep(0.1)
            assert len(bench.processes.children) == engines
            assert bench.engine().requests[-1] == encode_uapi(config)
        assert bench.processes.alive() == ["wireguard-go"]
        assert bench.links.links["wg0"] == before
        assert bench.reports == []
        bench.engine().kill()
        await bench.clock.sleep(0.1)
        assert bench.reports == ["restarted"]


@pytest.mark.anyio
async def test_a_new_engine_that_does_not_start_is_tried_by_the_next_configuration(bench: Bench) -> None:
    async with bench.kept() as device:
        bench.processes.refuse["wireguard-go"] = "not now"
        with pytest.raises(OSError, match="not now"):
            await device.configure(OTHER_FAMILY)
        del bench.processes.refuse["wireguard-go"]
        await device.configure(OTHER_FAMILY)
        assert bench.engine().requests == [encode_uapi(OTHER_FAMILY)]


@pytest.mark.anyio
async def test_no_engine_is_started_without_the_link(bench: Bench) -> None:
    async with bench.kept() as device:
        bench.links.delete("wg0")
        with pytest.raises(OSError, match="No such device"):
            await device.configure(OTHER_FAMILY)
        assert len(bench.processes.children) == 1
