"""Markdown tables, and their place in a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures.

    Raises ValueError for a row of another length than the header's.
    """
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under {len(header)} titles: {row}")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def markers(name: str) -> tuple[str, str]:
    """The lines between which a page keeps the tables of that name."""
    return f"<!-- begin {name} -->", f"<!-- end {name} -->"


def write_section(page: Path, name: str, text: str) -> None:
    """Puts `text` between the markers of that name. Raises ValueError where the page does not have them, once each."""
    content = page.read_text(encoding="utf-8")
    begin, end = markers(name)
    if content.count(begin) != 1 or content.count(end) != 1:
        raise ValueError(f"{page} must have one line {begin!r} and one {end!r}")
    before, rest = content.split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")


def figure(value: float) -> str:
    """Three digits, or two behind the point, or all of a whole number: 0.65, 2.05, 35.9, 1,435."""
    decimals = max(0, 3 - len(str(int(abs(value)))))
    return f"{value:,.{decimals}f}"
