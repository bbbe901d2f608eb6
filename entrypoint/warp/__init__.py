"""The WARP account: the API, what is kept of it, and which endpoints it names."""
