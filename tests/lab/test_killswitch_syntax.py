"""Whatever the policy, nft takes its text."""

import subprocess
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.network.killswitch import Closed, FullTunnel, HostFull, Policy, ProxyTunnel, ruleset
from entrypoint.network.plan import Destination, Mark, Network, Ports
from entrypoint.network.policies import Reserved

pytestmark = pytest.mark.lab

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
destinations = st.frozensets(
    st.builds(Destination, addresses, st.integers(1, 65535), st.sampled_from(("tcp", "udp"))), max_size=6
)
numbers = st.integers(1, 65535)
marks = st.builds(Mark, st.integers(1, 1 << 31), st.just(0xFFFFFFFF))
ports = st.lists(
    st.builds(
        lambda ends, kind: Ports(min(ends), max(ends), kind),
        st.tuples(numbers, numbers),
        st.sampled_from(("tcp", "udp")),
    ),
    max_size=5,
).map(tuple)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    address = draw(addresses)
    if address.version == 4:
        return IPv4Network((int(address), draw(st.integers(8, 32))), strict=False)
    return IPv6Network((int(address), draw(st.integers(7, 128))), strict=False)


written = st.none() | st.builds(
    Reserved, st.binary(min_size=3, max_size=3), destinations, st.just(Mark(0x1000, 0x1000))
)

policies: st.SearchStrategy[Policy] = st.one_of(
    st.builds(Closed, destinations, ports),
    st.builds(
        FullTunnel,
        st.just("wg0"),
        st.lists(addresses, max_size=3).map(tuple),
        destinations,
        st.lists(networks(), max_size=6).map(tuple),
        ports,
        ports,
        destinations,
        reserved=written,
    ),
    st.builds(
        HostFull,
        st.just(("wg0", "ssw-null")),
        st.lists(addresses, max_size=3).map(tuple),
        st.just(("eth0", "a-b_c.d")),
        destinations,
        st.lists(networks(), max_size=6).map(tuple),
        ports,
        st.lists(numbers, max_size=3, unique=True).map(tuple),
        st.lists(marks, max_size=2).map(tuple),
        destinations,
        reserved=written,
    ),
    st.builds(
        ProxyTunnel,
        st.just("a-b_c.d"),
        st.lists(addresses, max_size=3).map(tuple),
        ports,
        endpoints=destinations,
        reserved=written,
    ),
)


@settings(max_examples=40)
@given(policies, st.booleans())
def test_nft_takes_every_policy(policy: Policy, policed: bool) -> None:
    text = ruleset(policy, policed=policed)
    done = subprocess.run(
        ["unshare", "-n", "nft", "-c", "-f", "-"], input=text, text=True, capture_output=True
    )
    assert not done.returncode, done.stderr
