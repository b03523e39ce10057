"""How long the targets of a conversion take in the interpreter, here and now."""

from __future__ import annotations

from subbyte.converter.wording import NOTHING, TITLES

from . import measuring
from .measuring import Timing
from .page import Section, Table


def speed_section(files: dict[str, bytes]) -> tuple[Section, str]:
    """The section, and the packed model's median for the top of the page."""
    models = {TITLES[target]: files[target] for target in ("packed", "int8", "float32") if target in files}
    timings, refused = measuring.microseconds(models)
    rows = speed_rows(timings, refused, "stock int8")
    if "float32" not in models:
        rows.append(("float32", *[NOTHING] * 3, "no float model: the source is quantized"))
    columns = ("model", "median, µs", "fastest", "nine in ten", "of stock int8")
    caption = "Microseconds an invoke() takes from Python, one thread, the models in turn"
    section = Section("speed", "Speed", [f"{measuring.machine()}."], [Table(caption, columns, rows)])
    return section, f"{1e6 * timings['packed'].median:.1f} µs" if "packed" in timings else "refused"


def speed_rows(timings: dict[str, Timing], refused: dict[str, str], against: str) -> list[tuple[str, ...]]:
    """A row for each model: median, fastest and ninth decile in µs, and the median as a multiple of another's."""
    base = timings[against].median if against in timings else None
    rows = [
        (
            name,
            *(f"{1e6 * seconds:,.1f}" for seconds in (timing.median, timing.minimum, timing.ninth_decile)),
            NOTHING if base is None else f"{timing.median / base:.2f}",
        )
        for name, timing in timings.items()
    ]
    return rows + [(name, *[NOTHING] * 3, f"refused: {reason}") for name, reason in refused.items()]
