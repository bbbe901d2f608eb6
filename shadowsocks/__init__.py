"""What the container offers, as data: pure, no I/O, knows nothing of WARP or Linux."""
