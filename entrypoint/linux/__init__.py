"""Everything that touches the kernel, the network or another process."""
