"""Is a request answered through the tunnel, and what to do when it is not."""
