"""What nftables' messages say about our tables."""

import struct

import pytest

from entrypoint.linux.nft import DELTABLE, NEWTABLE, SystemNft

NEWRULE = 0x0A06
INET, ARP = 1, 3


def message(kind: int, family: int, name: bytes) -> bytes:
    text = name + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), 1) + text.ljust((len(text) + 3) & ~3, b"\0")
    body = struct.pack("=BBH", family, 0, 0) + attribute
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_others_tables_are_none_of_ours() -> None:
    nft = SystemNft()
    assert not nft.concerns_us(message(DELTABLE, INET, b"filter") + message(NEWTABLE, INET, b"ss_warp_try"))
    assert nft.concerns_us(message(NEWRULE, INET, b"filter") + message(NEWRULE, INET, b"ss_warp"))


@pytest.mark.anyio
async def test_a_table_that_ended_is_not_listed_to_see_that_it_ended() -> None:
    nft = SystemNft()
    flushed = message(DELTABLE, INET, b"filter") + message(DELTABLE, INET, b"ss_warp")
    assert nft.concerns_us(flushed + message(DELTABLE, ARP, b"ss_warp"))
    assert await nft.listing("inet", "ss_warp") == await nft.listing("arp", "ss_warp") == ""
    assert nft.concerns_us(message(DELTABLE, INET, b"ss_warp") + message(NEWTABLE, INET, b"ss_warp"))
    assert "inet ss_warp" not in nft._gone
    assert "arp ss_warp" in nft._gone


@pytest.mark.parametrize("length", [0, 3, 17, 1 << 31])
def test_a_message_that_lies_about_its_length_is_no_endless_loop(length: int) -> None:
    whole = message(DELTABLE, INET, b"ss_warp")
    assert SystemNft().concerns_us(struct.pack("=I", length) + whole[4:])
