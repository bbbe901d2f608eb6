"""Many nodes, one file for clients."""
