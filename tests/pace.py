"""How slow this machine is beside a real one: LAB_SLOW, 1 unless told; in the emulated machine more.

Deadlines and limits get longer by it, amounts smaller; what is tested stays the same.
"""

import os

SLOW = float(os.environ.get("LAB_SLOW", "1"))


def longer(seconds: float) -> float:
    """Return how long what takes `seconds` at most on a real machine may take here."""
    return seconds * SLOW


def fewer(count: int) -> int:
    """Return how many of `count` are enough here; at least 2."""
    return max(2, round(count / SLOW))


REPEAT = int(os.environ.get("LAB_REPEAT", "5"))
