"""How fast and how small, beside WireGuard alone and beside sing-box doing the whole job: `make bench`.

Every figure is taken from all contestants in the same run, in turns, at least five times; what counts is the
ratio of each turn (docs/benchmarks.md). The lab is that of the tests: tests/lab/topology.py.
"""
