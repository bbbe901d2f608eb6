"""Ways to run ss-warp."""
