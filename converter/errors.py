"""What a user of the converter can get wrong."""

from __future__ import annotations

import re

#: Where a message is cut.
_LONGEST = 400


class ConversionError(ValueError):
    """A model that cannot be converted. The message is one line that names the layer or file, and the mend."""


def one_line(error: Exception | str) -> str:
    """The line of a framework's long message that says what is wrong, without the configurations and code in it."""
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Exception encountered", "in user code", "File "))]
    telling = [line for line in lines if "error:" in line.lower()] or lines or [type(error).__name__]
    line = _without_braces(telling[0])
    line = re.sub(r"[\w+/=\\-]{60,}", "...", line)  # base64, names mangled by MLIR
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."


def _without_braces(line: str) -> str:
    """`line` with {...} for what is inside the outermost long braces: a layer's configuration has braces in braces."""
    kept, depth, start = [], 0, 0
    for place, character in enumerate(line):
        if character == "{":
            if depth == 0:
                kept.append(line[start:place])
                start = place
            depth += 1
        elif character == "}" and depth:
            depth -= 1
            if depth == 0:
                inner = line[start : place + 1]
                kept.append(inner if len(inner) < 60 else "{...}")
                start = place + 1
    rest = line[start:]
    return "".join(kept) + (rest if depth == 0 or len(rest) < 60 else "{...")
