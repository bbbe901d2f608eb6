"""wg0: kernel WireGuard, else wireguard-go; after device.py both look the same."""
