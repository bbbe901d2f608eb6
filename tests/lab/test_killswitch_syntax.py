"""Whatever the policy, nft takes its text."""

import subprocess
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.addresses import Destination, Mark
from entrypoint.firewall.policy import Closed, FullTunnel, HostFull, Policy, ProxyTunnel
from entrypoint.firewall.ruleset import ruleset
from tests.strategies import addresses, networks, numbers, ports

pytestmark = pytest.mark.lab

destinations = st.frozensets(
    st.builds(Destination, addresses, numbers, st.sampled_from(("tcp", "udp"))), max_size=6
)
marks = st.builds(Mark, st.integers(1, 1 << 31), st.just(0xFFFFFFFF))
spans = st.lists(ports, max_size=5).map(tuple)
prefixes = st.lists(networks(addresses, 8, 7), max_size=6).map(tuple)
octets = st.just(b"") | st.binary(min_size=3, max_size=3)

common = {
    "addresses": st.lists(addresses, max_size=3).map(tuple),
    "endpoints": destinations,
    "holes": destinations,
    "shadowsocks": spans,
    "reserved": octets,
    "outer": st.none() | st.just(ip_address("172.16.0.2")),
}
policies: st.SearchStrategy[Policy] = st.one_of(
    st.builds(Closed, holes=destinations, input_ports=spans),
    st.builds(FullTunnel, device=st.just("wg0"), neighbours=prefixes, input_ports=spans, **common),
    st.builds(
        HostFull,
        device=st.just("wg0"),
        null_device=st.just("ssw-null"),
        uplinks=st.just(("eth0", "a-b_c.d")),
        neighbours=prefixes,
        input_ports=spans,
        listening=st.lists(numbers, max_size=3, unique=True).map(tuple),
        foreign=st.lists(marks, max_size=2).map(tuple),
        **common,
    ),
    st.builds(ProxyTunnel, device=st.just("a-b_c.d"), **common),
)


@settings(max_examples=40)
@given(policies, st.booleans())
def test_nft_takes_every_policy(policy: Policy, policed: bool) -> None:
    text = ruleset(policy, policed=policed)
    done = subprocess.run(
        ["unshare", "-n", "nft", "-c", "-f", "-"], input=text, text=True, capture_output=True
    )
    assert not done.returncode, done.stderr
