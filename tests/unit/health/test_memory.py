"""Which endpoint comes next, and what a file of endpoints may hold."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from entrypoint.addresses import Endpoint
from entrypoint.health.memory import COOL_DOWN, HealthMemory, next_endpoint, order

ADDRESSES = [ip_address(one) for one in ("192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2")]
PORTS = (2408, 500, 1701, 4500)
CANDIDATES = tuple(Endpoint(address, port) for port in PORTS for address in ADDRESSES)


def tries(memory: HealthMemory, current: Endpoint, count: int) -> list[Endpoint]:
    """Return the endpoints tried after `current`, when none answers."""
    found = []
    for at in range(count):
        memory.record_failed(current, 1000.0 + at)
        current = next_endpoint(memory.known, CANDIDATES, current, 1000.0 + at)
        found.append(current)
    return found


def test_the_next_has_neither_the_port_nor_the_address_that_failed() -> None:
    first, second, *_ = tries(HealthMemory(), CANDIDATES[0], 2)
    assert first.port != CANDIDATES[0].port and first.address != CANDIDATES[0].address
    assert second.port not in {CANDIDATES[0].port, first.port}


@pytest.mark.parametrize("blocked", PORTS)
def test_a_blocked_port_costs_one_try_though_every_address_on_it_worked(blocked: int) -> None:
    memory = HealthMemory()
    for at, address in enumerate(ADDRESSES):
        memory.record_worked(Endpoint(address, blocked), 900.0 + at)
    [after] = tries(memory, Endpoint(ADDRESSES[0], blocked), 1)
    assert after.port != blocked


def test_every_endpoint_is_tried_before_any_a_second_time() -> None:
    found = tries(HealthMemory(), CANDIDATES[0], len(CANDIDATES))
    assert {*found} == {*CANDIDATES}
    assert found[-1] == CANDIDATES[0], "the one that failed longest ago"


def test_a_start_begins_with_what_worked_last_and_ends_with_what_failed() -> None:
    memory = HealthMemory()
    memory.record_worked(CANDIDATES[5], 900.0)
    memory.record_failed(CANDIDATES[0], 950.0)
    found = order(memory.known, CANDIDATES, 1000.0)
    assert (found[0], found[-1]) == (CANDIDATES[5], CANDIDATES[0])
    assert order(memory.known, CANDIDATES, 951.0 + COOL_DOWN)[1] == CANDIDATES[0]


def test_the_only_endpoint_is_its_own_next() -> None:
    only = CANDIDATES[:1]
    assert next_endpoint({}, only, only[0], 0.0) == only[0]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"endpoints": 7}', '{"endpoints": {"x": [1]}}', '{"endpoints": {"x": [1e999, 0]}}']
)
def test_an_unreadable_file_counts_as_empty(tmp_path: Path, content: str) -> None:
    file = tmp_path / "endpoints.json"
    file.write_text(content)
    assert HealthMemory.load(file).known == {}
