"""Compares architectures and training recipes on speakers held out of the training split: what docs/recipe.md tells.

    python -m benchmarks.recipe_search --data_dir=... --folds=2

The speaker groups of the training split are dealt into four parts of nearly equal size. Fold n trains on part n alone
and is scored on the other three: that is harder than the test split, and leaves more to tell apart than the dev split,
which every candidate gets almost right. The test split is never loaded into a fold. Candidates are float models of a
short training, which rank as their 4-bit twins do. Figures pool the clips of all folds. Results are kept under
build/recipe, by what they were made from.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from subbyte.keyword_spotting.augment import Augmentation
from subbyte.keyword_spotting.data import SPEEDS, Dataset, Split
from subbyte.keyword_spotting.evaluate import keras_logits
from subbyte.keyword_spotting.metrics import bootstrap, keyword_accuracy, log_posteriors, miss_rate, moving_average
from subbyte.keyword_spotting.train import RECOMMENDED, Recipe, train

from .accuracy import kept, percent
from .paper.training import data_digest
from .tables import markdown_table

PARTS = 4
SHORT = Recipe(updates=900)


@dataclass(frozen=True)
class Candidate:
    """One row: a float model of `models.CONVOLUTIONAL` and how it is trained."""

    title: str
    model: str
    recipe: Recipe


def _short(**augmentation: float) -> Recipe:
    return replace(SHORT, augmentation=Augmentation(**augmentation))  # type: ignore[arg-type]


CANDIDATES = (
    Candidate("default", "tc_resnet", SHORT),
    Candidate("the recommended", "tc_resnet_wide", replace(RECOMMENDED, updates=SHORT.updates)),
)


def parts(split: Split) -> NDArray[np.int64]:
    """The part [clips], 0 to PARTS - 1, of each clip's speaker: the largest groups are dealt first."""
    speakers, index, clips = np.unique(split.speakers, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(speakers))
    part, filled = np.empty(len(speakers), np.int64), np.zeros(PARTS)
    for speaker in order[np.argsort(-clips[order], kind="stable")]:
        part[speaker] = np.argmin(filled)
        filled[part[speaker]] += clips[speaker]
    return part[index]


def fold(dataset: Dataset, number: int) -> Dataset:
    """A dataset that trains on one part of the training speakers and has the others in place of dev and test."""
    part = parts(dataset.train)
    original = np.arange(len(part)) % len(SPEEDS) == 0  # a recording's own speed comes first
    known, held = part == number, (part != number) & original

    def only(clips: NDArray[np.bool_]) -> Split:
        whole = dataset.train
        return replace(
            whole, keywords=whole.keywords[clips], labels=whole.labels[clips], speakers=whole.speakers[clips]
        )

    return replace(dataset, train=only(known), dev=only(held), test=only(held))


def logits(candidate: Candidate, dataset: Dataset, seed: int) -> NDArray[np.float32]:
    """Trains; the log posteriors [clips, classes] of the speakers held out."""
    trained = train(candidate.model, dataset, seed, candidate.recipe, progress=True)
    return moving_average(keras_logits(trained.model, trained.normalization(dataset.dev.views())))


def cells(candidate: Candidate, runs: Sequence[NDArray[np.float32]], held: Sequence[Split]) -> list[str]:
    """A row of the table, from the logits of each fold."""
    pooled = np.concatenate(list(runs))
    labels, speakers = (np.concatenate([getattr(split, name) for split in held]) for name in ("labels", "speakers"))
    accuracy = bootstrap(keyword_accuracy, pooled, labels, speakers)
    entropy = -log_posteriors(pooled)[np.arange(len(labels)), labels].mean()
    misses = [percent(miss_rate(pooled, labels, rate)) for rate in (0.01, 0.003)]
    interval = f"[{percent(accuracy.low)}, {percent(accuracy.high)}]"
    return [candidate.title, f"{percent(accuracy.value)} {interval}", *misses, f"{entropy:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="recordings; default: $SUBBYTE_DATA, else synthetic speech")
    parser.add_argument("--folds", type=int, choices=range(1, PARTS + 1), default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("build/recipe"))
    flags = parser.parse_args()

    flags.output_dir.mkdir(parents=True, exist_ok=True)
    dataset = Dataset.load(flags.data_dir, progress=True)
    folds, data = [fold(dataset, number) for number in range(flags.folds)], data_digest(dataset)
    table = []
    for candidate in CANDIDATES:
        runs = []
        for number, part in enumerate(folds):
            made_from = {"candidate": repr(candidate), "fold": number, "seed": flags.seed, "data": data}
            name = hashlib.sha256(repr(made_from).encode()).hexdigest()[:12]
            make = functools.partial(logits, candidate, part, flags.seed)
            runs.append(kept(flags.output_dir / f"{name}.json", made_from, make))
        table.append(cells(candidate, runs, [part.dev for part in folds]))
        print(*table[-1], sep=", ", flush=True)
    print(f"\n{flags.folds} folds of {PARTS} parts of {len(np.unique(dataset.train.speakers))} speaker groups\n")
    titles = ("candidate", "keyword accuracy, %", "misses at 1 %, %", "misses at 0.3 %, %", "cross-entropy, nats")
    print(markdown_table(titles, table))


if __name__ == "__main__":
    main()
