"""What a command shows its user."""

import os
import sys


def silence_native_logs() -> None:
    """Sends what native libraries log to nowhere; Python's sys.stderr, and so every message to the user, works on."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
