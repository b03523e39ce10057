"""A report as one HTML file that needs nothing besides itself: what `--report` writes.

    page.require()                            # one line where Jinja2 or matplotlib are missing
    html = page.Page("kws", "A wake word.", highlights, sections).html()

`templates` has the form; `conversion_page` says what a conversion tells in it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from subbyte.converter.errors import ConversionError

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        caption: says what it shows, with units.
        columns: headings; the first heads the rows.
        rows, sums: cells as text; the sums stand under a line.
        texts: how many columns from the left hold text; the others hold numbers.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    sums: Sequence[Sequence[str]] = ()
    texts: int = 1


@dataclass(frozen=True)
class Plot:
    """An SVG element and what stands under it."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page: sentences, then tables and plots; `id` is its anchor."""

    id: str
    title: str
    sentences: Sequence[str] = ()
    parts: Sequence[Table | Plot] = ()
    gallery: Sequence[Plot] = field(default=())  #: small plots side by side, behind the rest


@dataclass(frozen=True)
class Page:
    """What the template takes: a title, a sentence under it, the main figures (name, value, remark), and sections."""

    title: str
    lead: str
    highlights: Sequence[tuple[str, str, str]]
    sections: Sequence[Section]

    def html(self) -> str:
        """The whole file."""
        template = _environment().get_template("page.html")
        return template.render(page=self, version=version("subbyte"))


def require() -> None:
    """Raises ConversionError where what pages are made with is not installed."""
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConversionError(f"a report needs {' and '.join(missing)}: pip install 'subbyte[report]'")


@cache
def _environment() -> Environment:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # of `figures`, which escapes what it gets
    return environment
