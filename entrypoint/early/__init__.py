"""Before anything expensive is imported: checks, placement, the closed firewall."""
