"""Run short-lived programs to their end. Light to import: the firewall is closed with it.

Only this file and processes.py start programs. Arguments are lists, the environment is minimal, and
standard input is what the caller passes.
"""

import subprocess
from collections.abc import Sequence

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

LIMIT = 5.0
"""Seconds after which a program that hangs is killed."""


# Short-lived programs start here, long-lived ones in processes.py. This one is imported before the firewall
# is closed, so it must not import anyio.
def run(argv: Sequence[str], text: str = "") -> str:
    """Run `argv` with `text` on its standard input; return what it printed.

    Raises FileNotFoundError if it does not exist, TimeoutError if it does not end, and OSError with the
    first line of its error output if its exit code is not 0.
    """
    try:
        # A program that hangs is killed after LIMIT and named: nft on a broken kernel must not hang the
        # start.
        # Names of interfaces may hold any bytes.
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT,
            check=False,
            env=ENVIRONMENT,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{argv[0]}: no result within {LIMIT:g} s") from error
    if done.returncode:
        complaint = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise OSError(f"{argv[0]}: {complaint}")
    return done.stdout
