"""The DNS: a pure answer to a query's bytes, over the emulator's little zone."""

from collections.abc import Mapping
from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.cloudflare.config import API_NAME, EDGE_NAME, TEAM_API_NAME, TEAM_NAME, Address, Config
from tests.cloudflare.devices import addresses

TTL = 60

type Zone = Mapping[str, tuple[Address, ...]]


def zone(config: Config) -> Zone:
    """Return every name the DNS knows."""
    first = addresses(config, 1)
    www = (ip_address("104.16.132.229"), ip_address("2606:4700::6810:84e5"))
    return {
        "www.cloudflare.com": www,
        "cloudflare.com": www,
        "connectivity.cloudflareclient.com": www,
        "origin.test": www,
        "v4.origin.test": www[:1],
        "v6.origin.test": www[1:],
        EDGE_NAME: (first.endpoint4, first.endpoint6),
        TEAM_NAME: config.api_addresses,
        API_NAME: config.api_addresses,
        TEAM_API_NAME: config.api_addresses,
        **config.names,
    }


def answered(query: bytes, known: Zone) -> tuple[bytes, str]:
    """Return the answer's bytes and the name asked for. Raises ValueError for what is no query."""
    try:
        asked = dns.message.from_wire(query)
        question = asked.question[0]
    except (dns.exception.DNSException, IndexError) as error:
        raise ValueError("no DNS query") from error
    name = question.name.to_text(omit_final_dot=True).lower()
    reply = dns.message.make_response(asked, recursion_available=True)
    if name not in known:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(question.rdtype)
    found = [str(one) for one in known.get(name, ()) if one.version == version]
    if found:
        reply.answer.append(dns.rrset.from_text_list(question.name, TTL, "IN", question.rdtype, found))
    return reply.to_wire(), name
