"""What may become of a file or an answer on its way: bytes lost, doubled, replaced; members that lie."""

import json
import random
from copy import deepcopy
from typing import Any

from tests.fakes.warp_api import EDGE_KEY

HOSTILE = [
    *(b"null", b"NaN", b"-Infinity", b"1e999", b"-1", b"65536", b"true", b'""', b"[]", b"{}", b"[[[[[["),
    *(b'"127.0.0.1:2408"', b'"10.0.0.1:0"', b'"162.159.192.1:70000"', b'"[::1]:2408"', b'"0.0.0.0"'),
    *(b'"; rm -rf /"', b'"$(reboot)"', b'"\\u0000"', b'"\\ud800"', b"\xff\xfe", b"\x00", b"\xf0\x9f\x98\x80"),
    *(b'"id": "twice",', b'"' + b"A" * 5000 + b'"', b"9" * 5000, b"[" * 2000, b'{"a":' * 2000),
]


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """Return the bytes after one to four accidents."""
    data = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        upto = min(len(data), at + chance.randrange(1, 40))
        match chance.randrange(7):
            case 0:
                del data[at:]
            case 1:
                del data[at:upto]
            case 2:
                data[at:at] = data[at:upto] * chance.randrange(1, 4)
            case 3 if at < len(data):
                data[at] = chance.randrange(256)
            case 4 | 5:  # a whole JSON value, where there is one
                start = data.find(b": ", at) + 2
                data[start : max(start, data.find(b",", start))] = chance.choice(HOSTILE)
            case _:
                data[at:at] = chance.choice(HOSTILE)
    return bytes(data)


VALUES: list[object] = [
    *(
        None,
        True,
        0,
        -1,
        65536,
        2**70,
        1.5,
        float("nan"),
        "",
        "x",
        "é",
        "a b",
        "\0",
        "A" * 5000,
        [],
        {},
        [[]],
        [None],
    ),
    *(
        "127.0.0.1:2408",
        "10.0.0.1:0",
        "162.159.192.1:70000",
        "0.0.0.0:1",
        "[::1]:1",
        "fe80::1%eth0",
        "1.1.1.1/33",
    ),
    *("engage.cloudflareclient.com:0", "; rm -rf /", "AQID", "-w==", EDGE_KEY, ["162.159.192.1:2408"] * 100),
]


def reshaped(value: object, chance: random.Random) -> bytes:
    """Return it as JSON with one to three members removed or something else; the JSON itself is whole."""
    for _ in range(chance.randint(1, 3)):
        if not (found := places(value)):
            break
        container, key = chance.choice(found)
        if chance.randrange(4):
            container[key] = deepcopy(chance.choice(VALUES))
        else:
            del container[key]
    return json.dumps(value).encode()


def places(value: object) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            pairs.append((value, key))
            pairs += places(value[key])
    return pairs
