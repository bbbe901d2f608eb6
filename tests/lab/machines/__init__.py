"""Machines as they stand at providers and in racks, each asked the same questions with ss-warp on it."""
