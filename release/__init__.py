"""What a release consists of, made from the image alone: `make release`."""
