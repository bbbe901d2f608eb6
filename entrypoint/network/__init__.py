"""Routing and firewall: what should be (pure), what is there (netlink, nft), and the difference."""
