"""The WARP account: the API, what is stored of it, and its lifecycle."""
