"""What people look at: pages, figures, where the bytes of a file are, what a model takes in the interpreter.

    from subbyte import reports

    html = reports.conversion_page(conversion, result, name="kws.keras")     # what --report writes
    reports.Footprint.of(tflite).layers                                      # bytes of each layer
    timings, refused = reports.microseconds({"kws": tflite})                 # here and now

Pages need the extra "report"; bytes and times do not.
"""

from subbyte.converter import Footprint
from subbyte.converter.wording import NOTHING

from .conversion_page import conversion_page
from .measuring import (
    Stopwatch,
    Timing,
    arena_bytes,
    machine,
    microseconds,
    placed_bytes,
    processor_name,
)
from .page import Page, Plot, Section, Table
from .size_section import footprint_parts
from .speed_section import speed_rows

__all__ = [
    "NOTHING",
    "Footprint",
    "Page",
    "Plot",
    "Section",
    "Stopwatch",
    "Table",
    "Timing",
    "arena_bytes",
    "conversion_page",
    "footprint_parts",
    "machine",
    "microseconds",
    "placed_bytes",
    "processor_name",
    "speed_rows",
]
