"""The kill switch: its policy, its nftables text, and keeping it loaded."""
