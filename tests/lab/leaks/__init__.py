"""The leak cases of docs/security.md, in both placements and both route modes, each seen from the wire."""
