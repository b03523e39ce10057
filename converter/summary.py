"""What a conversion gains: bytes and speed of the whole file against what it was made from."""

from __future__ import annotations

from dataclasses import dataclass

from .conversion import Conversion, Result
from .timing import Stopwatch, microseconds

#: Enough for two digits in a tenth of a second: the page of `--report` measures longer.
_STOPWATCH = Stopwatch(rounds=11, seconds=0.003)


@dataclass(frozen=True)
class Summary:
    """The whole file beside another.

    Attributes:
        against: what the other is: "the original" `.tflite`, or "stock int8" for a Keras model.
        bytes, bytes_against: of the files.
        microseconds, microseconds_against: median of an invoke() from Python on this machine, one thread; None where
            the interpreter refuses the file.
    """

    against: str
    bytes: int
    bytes_against: int
    microseconds: float | None
    microseconds_against: float | None

    @classmethod
    def of(cls, conversion: Conversion, result: Result) -> Summary:
        """Measures for a moment."""
        against, other = conversion.original()
        timings, _ = microseconds({"written": result.tflite, "other": other}, _STOPWATCH)
        written, before = (1e6 * timings[name].median if name in timings else None for name in ("written", "other"))
        return cls(against, len(result.tflite), len(other), written, before)

    def __str__(self) -> str:
        line = f"{self.bytes:,} bytes, {self.bytes / self.bytes_against:.2f} times those of {self.against}"
        if self.microseconds is None or self.microseconds_against is None:
            return f"{line}; not timed, since the interpreter refuses one of them"
        times = self.microseconds / self.microseconds_against
        return f"{line}; an invoke() takes {self.microseconds:,.1f} µs on this machine, {times:.2f} times as long"
