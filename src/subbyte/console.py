"""Where the commands print their tables: no name is cut, whatever the width."""

from __future__ import annotations

import sys
from typing import Any

from .extras import needed_by

with needed_by("subbyte.console"):
    from rich.console import Console, JustifyMethod
    from rich.table import Table

#: Columns of what has no width, a pipe or a file: more than any table takes.
_NO_WIDTH = 1000


def console(**arguments: Any) -> Console:
    """A console on standard output; in a terminal as wide as that, elsewhere as wide as what is printed."""
    return Console(width=None if sys.stdout.isatty() else _NO_WIDTH, **arguments)


def add_columns(table: Table, *headings: str, justify: JustifyMethod = "left") -> None:
    """Adds columns in which a long name or figure goes on in the next line, instead of being cut."""
    for heading in headings:
        table.add_column(heading, justify=justify, overflow="fold")
