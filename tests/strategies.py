"""What hypothesis draws networks from: addresses, ports, prefixes."""

from ipaddress import IPv4Network, IPv6Network

from hypothesis import strategies as st

from entrypoint.addresses import Address, Network, Ports

addresses: st.SearchStrategy[Address] = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
numbers = st.integers(1, 65535)
ports = st.builds(
    lambda ends, kind: Ports(min(ends), max(ends), kind),
    st.tuples(numbers, numbers),
    st.sampled_from(("tcp", "udp")),
)


@st.composite
def networks(draw: st.DrawFn, around: st.SearchStrategy[Address], least4: int, least6: int) -> Network:
    """Draw a prefix around such an address, of at least that length."""
    address = draw(around)
    if address.version == 4:
        return IPv4Network((int(address), draw(st.integers(least4, 32))), strict=False)
    return IPv6Network((int(address), draw(st.integers(least6, 128))), strict=False)
