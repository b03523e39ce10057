"""How much is measured, and how a time is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subbyte.reports import Stopwatch, Timing

from .networks import PACKED_FORMATS, Model, Network, PackedFormat, packed_model
from .peers import STOCK_NAMES, stock_models
from .tables import figure


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        networks: in the order of the tables; the last is the one whose loading is timed.
        stopwatch: times invokes.
        loads: processes that load each model.
        threads: the most of them.
        folder: for model files.
    """

    networks: tuple[Network, ...]
    stopwatch: Stopwatch
    loads: int
    threads: int
    folder: Path

    def models(
        self,
        network: Network,
        packed: Sequence[PackedFormat] = PACKED_FORMATS,
        stock: Sequence[str] = STOCK_NAMES,
    ) -> list[Model]:
        """The network's files, packed ones first. They replace those of the network before."""
        for path in self.folder.glob("*.tflite"):
            path.unlink()
        return [
            *(packed_model(network, packed_format, self.folder) for packed_format in packed),
            *stock_models(network, self.folder, tuple(stock)),
        ]

    def time(self, models: Sequence[Model], **options: Any) -> dict[str, Timing]:
        """Seconds an invoke, by the model's name; `options` go to `Model.interpreter`."""
        interpreters = {model.name: model.interpreter(**options) for model in models}
        return self.stopwatch.time_in_turn({name: found.invoke for name, found in interpreters.items()})


def against(timings: Mapping[str, Timing], name: str, other: str) -> str:
    """Microseconds, and how many times as fast as another model."""
    return f"{microseconds(timings[name].median)} ({timings[other].median / timings[name].median:.2f})"


def microseconds(seconds: float) -> str:
    return figure(1e6 * seconds)
