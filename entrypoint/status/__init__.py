"""What is known now: states, status board, heartbeat, HTTP server and metrics."""
