"""What is said about layers: each text once, however many layers it is true of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something to know about one layer.

    Attributes:
        subject: the layer, or the input or output.
        text: goes on from the subject: "stays a stock CONV_2D: ...".
    """

    subject: str
    text: str


def lines(notes: Iterable[Note | str]) -> list[str]:
    """A line for each different text, in the order of their first layers; a line that is one already stays."""
    subjects: dict[str, list[str]] = {}
    order: dict[tuple[str, bool], None] = {}
    for note in notes:
        if isinstance(note, str):
            order[note, True] = None
        else:
            subjects.setdefault(note.text, []).append(note.subject)
            order[note.text, False] = None
    return [text if is_whole else _line(subjects[text], text) for text, is_whole in order]


def _line(subjects: list[str], text: str) -> str:
    others = len(subjects) - 1
    return f"{subjects[0]}{f', like {others} more,' if others else ''} {text}"
