"""Doors that behave: each refuses what the real one refuses, and prints what it has become."""
