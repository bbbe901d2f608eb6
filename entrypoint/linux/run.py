"""Short-lived programs, run to their end; light to import: the firewall is closed before all else.

With children.py the only place that starts programs. Arguments are lists, the environment is built
from nothing, standard input is what we hand over.
"""

import subprocess
from collections.abc import Sequence

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

LIMIT = 5.0
"""Seconds after which a program that hangs is killed."""


def run(argv: Sequence[str], text: str = "") -> str:
    """Run `argv` with `text` on its standard input; return what it printed.

    Raises FileNotFoundError when it does not exist, TimeoutError when it does not end, and OSError
    with its first line of complaint when it exits with anything but 0.
    """
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=LIMIT, check=False, env=ENVIRONMENT
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{argv[0]}: no end within {LIMIT:g} s") from error
    if done.returncode:
        complaint = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise OSError(f"{argv[0]}: {complaint}")
    return done.stdout
