"""The tunnel device: kernel WireGuard, else userspace; device.py makes both look the same."""
