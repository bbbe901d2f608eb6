"""Runs in the client's container: say when the first answer came through the link.

    LINK=ss://… python -m tests.image.first_byte

Prints `waiting` when sslocal listens, then `at SECONDS`, seconds since 1970.
"""

import os
import subprocess
import sys
import time
from ipaddress import IPv4Address

from examples.demo.client import SSLOCAL, Tunnelled, listening
from tests.lab.product import eventually

PATIENCE = 15.0
TRY = 0.2
"""Seconds per attempt: a SYN that comes too early is dropped and only sent again after a second."""


def answered() -> bool:
    """Try once."""
    try:
        return Tunnelled(TRY).tcp(IPv4Address("1.1.1.1")).warp == "on"
    except OSError:
        return False


def main() -> None:
    """Wait for the first answer."""
    with subprocess.Popen(
        [*SSLOCAL, os.environ["LINK"]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            eventually(listening, "sslocal listens")
            print("waiting", flush=True)
            eventually(answered, "an answer", PATIENCE)
            print(f"at {time.time()}", flush=True)
        except AssertionError as error:
            sys.exit(str(error))
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
