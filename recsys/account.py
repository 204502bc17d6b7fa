"""Who does it: the account that a change of what is served is recorded with."""

from __future__ import annotations

import getpass
import os
import socket


def current_account() -> str:
    """Return the user and the host of this process, as ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user that has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
