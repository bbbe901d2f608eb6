"""Where the sink listens, and the sizes both ends agree on."""

SINK = "1.1.1.1"
"""An address of the emulated origin."""

BULK, ECHO = 5201, 5202
"""TCP: bulk one way, chosen by the first byte; TCP and UDP: every byte comes back."""

SEND, COUNT = b"D", b"U"
"""First byte of a bulk connection: the sink sends until the other end closes, or counts until it does."""

BLOCK = 1 << 20
PATIENCE = 10.0
"""Seconds without progress after which a figure is given up."""
