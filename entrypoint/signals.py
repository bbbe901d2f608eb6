"""What signals do to the supervisor; light to import: the firewall is not closed yet."""

import signal

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""Each asks for a stop in order: a terminal that is closed must not leave rules and routes behind."""

IGNORED = (signal.SIGUSR1, signal.SIGUSR2)
"""Their default is to end a process on the spot."""
