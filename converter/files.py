"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from .errors import ConversionError


def check_writable(path: Path) -> None:
    """Raises ConversionError for a path that no file can be written to, before anybody has waited for it."""
    if path.is_dir():
        raise ConversionError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise ConversionError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConversionError(f"cannot write {path}: permission denied")


def write_atomically(path: Path, data: bytes) -> None:
    """Puts `data` at `path` whole or not at all; a file that was there keeps its permissions, a link its place.

    Raises ConversionError where that cannot be done.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)  # a device or a pipe
            return
        temporary.write_bytes(data)
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConversionError(f"cannot write {path}: {error.strerror}") from error
