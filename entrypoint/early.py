"""What was done before the settings were read."""

from dataclasses import dataclass

from entrypoint.closing import LOAD, Run
from entrypoint.network.killswitch import release
from entrypoint.network.placement import Placement


@dataclass(frozen=True, slots=True)
class Early:
    """`closed`: the blocking table is loaded. `adopted`: the table of a predecessor was there."""

    placement: Placement
    closed: bool
    adopted: bool

    def release(self, run: Run) -> None:
        """Take back what this start did and nothing else: for a start that ends before it began."""
        if self.closed and not self.adopted:
            run(LOAD, release())
