"""Which files a command may write: none that it reads, none twice, none inside the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .errors import ConversionError
from .files import check_writable


def check_outputs(outputs: Mapping[str, Path], inputs: Mapping[str, Path]) -> None:
    """Raises ConversionError, before anybody has waited, where an output cannot be written or would destroy something.

    Args:
        outputs: what is to be written, by the flag that says so.
        inputs: files and folders that are read, by flag. Links and hard links count as what they lead to.
    """
    for flag, path in outputs.items():
        check_writable(path)
        for other, source in inputs.items():
            if is_same_file(path, source):
                raise ConversionError(f"{flag} would write over the file that {other} reads, {path}: give another name")
            if source.is_dir() and _is_inside(path, source):
                raise ConversionError(f"{flag}={path} is inside the folder that {other} reads: give another one")
    flags = list(outputs)
    for place, flag in enumerate(flags):
        for other in flags[:place]:
            if is_same_file(outputs[flag], outputs[other]):
                raise ConversionError(f"{flag} and {other} would write the same file, {outputs[flag]}: give two names")


def is_same_file(a: Path, b: Path) -> bool:
    """Whether both paths lead to one file, be it there or not yet; names that differ in case alone are one name."""
    if a.exists() and b.exists():
        return os.path.samefile(a, b)
    a, b = a.resolve(), b.resolve()
    if a.name.casefold() != b.name.casefold():
        return False
    return os.path.samefile(a.parent, b.parent) if a.parent.exists() and b.parent.exists() else a.parent == b.parent


def _is_inside(path: Path, folder: Path) -> bool:
    return any(parent.exists() and os.path.samefile(parent, folder) for parent in path.resolve().parents)
