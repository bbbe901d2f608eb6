"""How the container gets there; all that touches Linux. `python -m entrypoint`, in the image `ss-warp`."""

__version__ = "0.1.0"
