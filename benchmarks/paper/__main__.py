"""The tables of the paper on public recordings: `make paper`, or a thin slice with `make paper-quick`.

python -m benchmarks.paper                              # trains what is missing; prints Markdown
python -m benchmarks.paper --write docs/results.md      # and puts it into the page
python -m benchmarks.paper --quick                      # one seed, five models, short: three minutes
"""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from subbyte.keyword_spotting.data import Dataset
from subbyte.reports import machine

from ..tables import write_section
from . import tables
from .configurations import CONFIGURATIONS, FULL, Configuration
from .costs import cost_table
from .evaluation import Measured, measure_missing
from .training import train_missing

QUICK = ("M0", "M2", "M4", "linear-5-layer", "tanh-5")
QUICK_UPDATES = 400


def sections(models: dict[str, dict[str, Measured]], paths: dict[str, Path], dataset: Dataset) -> Iterator[
    tuple[str, str]
]:  # fmt: skip
    """Name and Markdown of each part of the page."""
    seeds = len(models["M0"]["test"].logits)
    streams = {split: found.streams for split, found in models["M0"].items()}
    hours = {split: float(counts.seconds.sum()) / 3600 for split, counts in streams.items()}
    source = dataset.source.partition(" from the folder ")[0]
    told = (
        f"{source}. Test: {len(dataset.test.labels)} clips of {len(np.unique(dataset.test.speakers))} speaker "
        f"groups; a stream of {hours['test']:.2f} hours with {streams['test'].positives.sum():.0f} keywords. Dev: "
        f"{len(dataset.dev.labels)} clips, {hours['dev']:.2f} hours. {seeds} seed{'s' * (seeds > 1)}. Measured on "
        f"{datetime.date.today()}: {machine()}."
    )
    yield "data", told
    for name, first in (("models", "model"), ("tanh", "quantizer"), ("ladder", "at 8 bits"), ("widths", "bits"),
                        ("binary", "model"), ("recipe", "model")):  # fmt: skip
        rows = getattr(tables, name.upper())
        if sum(row.name in models for row in rows) < 2:  # of a thin slice: nothing to compare
            continue
        lines = tables.detection_table(rows, models, dataset.test, first)
        yield name, "\n".join([lines, "", *tables.claims(name, models)])
    yield "costs", cost_table(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="recordings; default: $SUBBYTE_DATA, else synthetic speech")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("build/paper"), help="keeps models and results")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trainings at a time")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", type=Path, help="the page")
    flags = parser.parse_args()
    chosen, seeds = CONFIGURATIONS, range(flags.seeds)
    if flags.quick:
        chosen, seeds = tuple(_shortened(c) for c in CONFIGURATIONS if c.name in QUICK), range(1)

    (flags.folder / "models").mkdir(parents=True, exist_ok=True)
    paths = train_missing(chosen, seeds, flags.folder / "models", flags.data_dir, flags.jobs)
    models = measure_missing(paths, flags.data_dir, flags.jobs)
    dataset = Dataset.load(flags.data_dir)
    for name, text in sections(models, {name: path for (name, seed), path in paths.items() if seed == 0}, dataset):
        print(f"## {name}\n\n{text}\n")
        if flags.write:
            write_section(flags.write, name, text)


def _shortened(configuration: Configuration) -> Configuration:
    updates = max(1, round(configuration.recipe.updates / FULL.updates * QUICK_UPDATES))
    return replace(configuration, recipe=replace(configuration.recipe, updates=updates))


if __name__ == "__main__":
    main()
