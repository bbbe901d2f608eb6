"""Where measured values are kept until they are written down."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

type Samples = dict[str, dict[str, list[float]]]
"""Figure → contestant → one value a round."""
type Group = Callable[[Path, int, float], Samples]
"""A directory, how many rounds, and the seconds of each measurement → what was measured."""


class Notes:
    """Collects samples."""

    def __init__(self) -> None:
        self.samples: Samples = defaultdict(lambda: defaultdict(list))

    def add(self, figure: str, contestant: str, value: float) -> None:
        """Note one value."""
        self.samples[figure][contestant].append(value)

    def done(self) -> Samples:
        """Return all of them."""
        return {figure: dict(found) for figure, found in self.samples.items()}
