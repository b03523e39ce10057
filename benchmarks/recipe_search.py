"""Compares architectures and training recipes on speakers held out of the training split: what docs/recipe.md tells.

    python -m benchmarks.recipe_search --data_dir=... --parts=4 --folds 0 1

The speaker groups of the training split are dealt into parts of nearly equal size. Fold n trains on part n alone and is
scored on the others: with four parts that is harder than the dev split, which every candidate gets almost right, and
leaves differences to see. The test split plays no part. Candidates are float models of one short training; whether
their 4-bit twins keep the order is for the full recipe to show. Figures pool the clips of all folds. Background are
the running speech and noise of the dev split. Results are kept under build/recipe, by what they were made from.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subbyte.keyword_spotting.augment import Augmentation
from subbyte.keyword_spotting.data import SPEEDS, Dataset, Split
from subbyte.keyword_spotting.evaluate import keras_logits
from subbyte.keyword_spotting.intervals import bootstrap
from subbyte.keyword_spotting.metrics import keyword_accuracy, log_posteriors, miss_rate, moving_average
from subbyte.keyword_spotting.train import TrainingRecipe, train

from .accuracy import kept, percent
from .paper.training import data_digest
from .tables import markdown_table

#: Of every candidate, whatever the defaults have become.
SHORT = TrainingRecipe(updates=900, label_smoothing=0.1, augmentation=Augmentation(background=0.15))


@dataclass(frozen=True)
class Candidate:
    """One row: a float model of `models.CONVOLUTIONAL` and how it is trained."""

    model: str
    recipe: TrainingRecipe = SHORT


def _short(dropout: float = SHORT.dropout, **augmentation: Any) -> TrainingRecipe:
    return replace(SHORT, dropout=dropout, augmentation=replace(SHORT.augmentation, **augmentation))


_VOICES: dict[str, Any] = {"tract": 2.0, "tempo": 1.4}
_MASKS: dict[str, Any] = {"frames_masked": 10, "bands_masked": 8}
_STRONG: dict[str, Any] = {"tract": 3.0, "tempo": 1.5, "frames_masked": 13, "bands_masked": 12}
CANDIDATES = {
    "narrow": Candidate("tc_resnet"),
    "narrow, voices": Candidate("tc_resnet", _short(**_VOICES)),
    "narrow, small masks": Candidate("tc_resnet", _short(frames_masked=5, bands_masked=4)),
    "narrow, masks": Candidate("tc_resnet", _short(**_MASKS)),
    "narrow, masks, voices": Candidate("tc_resnet", _short(**_MASKS, **_VOICES)),
    "narrow, masks, voices, dropout": Candidate("tc_resnet", _short(0.3, **_MASKS, **_VOICES)),
    "narrow, strong": Candidate("tc_resnet", _short(**_STRONG)),
    "wide": Candidate("tc_resnet_wide"),
    "wide, small masks": Candidate("tc_resnet_wide", _short(frames_masked=5, bands_masked=4)),
    "wide, masks, voices": Candidate("tc_resnet_wide", _short(**_MASKS, **_VOICES)),
    "wide, strong": Candidate("tc_resnet_wide", _short(**_STRONG)),
    "wide, strong, background": Candidate("tc_resnet_wide", _short(**_STRONG, background=0.3)),
}


def parts(split: Split, count: int) -> NDArray[np.int64]:
    """The part [clips], 0 to `count` - 1, of each clip's speaker: the largest groups are dealt first."""
    speakers, index, clips = np.unique(split.speakers, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(speakers))
    part, filled = np.empty(len(speakers), np.int64), np.zeros(count)
    for speaker in order[np.argsort(-clips[order], kind="stable")]:
        part[speaker] = np.argmin(filled)
        filled[part[speaker]] += clips[speaker]
    return part[index]


def fold(dataset: Dataset, number: int, count: int) -> Dataset:
    """A dataset that trains on one part of the training speakers and has the others in place of dev and test."""
    whole, part = dataset.train, parts(dataset.train, count)
    original = np.arange(len(part)) % len(SPEEDS) == 0  # a recording's own speed comes first

    def only(clips: NDArray[np.bool_], background: Split) -> Split:
        return replace(
            background, keywords=whole.keywords[clips], labels=whole.labels[clips], speakers=whole.speakers[clips]
        )

    held = only((part != number) & original, dataset.dev)
    return replace(dataset, train=only(part == number, whole), dev=held, test=held)


def posteriors(candidate: Candidate, dataset: Dataset, seed: int) -> NDArray[np.float32]:
    """Trains; the log posteriors [clips + windows, classes] of the clips held out, then of windows of background."""
    trained = train(candidate.model, dataset, seed, candidate.recipe, progress=True)
    clips, background = dataset.dev.views(), dataset.dev.background()
    found = (keras_logits(trained.model, trained.normalization(raw)) for raw in (clips, background))
    return np.concatenate([moving_average(next(found)), log_posteriors(next(found))])


def cells(title: str, runs: Sequence[NDArray[np.float32]], held: Sequence[Split]) -> list[str]:
    """A row of the table, from the log posteriors of each fold."""
    pairs = list(zip(runs, held, strict=True))
    clips = np.concatenate([run[: len(split.labels)] for run, split in pairs])
    background = np.concatenate([run[len(split.labels) :] for run, split in pairs])
    labels, speakers = (np.concatenate([getattr(split, name) for split in held]) for name in ("labels", "speakers"))
    accuracy = bootstrap(keyword_accuracy, clips, labels, speakers)
    interval = f"[{percent(accuracy.low)}, {percent(accuracy.high)}]"
    misses = [percent(miss_rate(clips, labels, rate)) for rate in (0.01, 0.003)]
    entropy = -float(log_posteriors(clips)[np.arange(len(labels)), labels].mean())
    taken = float(np.mean(np.argmax(background, axis=1) < background.shape[1] - 1))
    return [title, f"{percent(accuracy.value)} {interval}", *misses, f"{entropy:.3f}", percent(taken)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="recordings; default: $SUBBYTE_DATA, else synthetic speech")
    parser.add_argument("--parts", type=int, default=4, help="of the training speakers; default: %(default)s")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1], help="parts to train on; default: %(default)s")
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("build/recipe"))
    flags = parser.parse_args()

    flags.output_dir.mkdir(parents=True, exist_ok=True)
    if not all(0 <= number < flags.parts for number in flags.folds):
        parser.error(f"--folds must be from 0 to {flags.parts - 1}, below --parts")
    dataset = Dataset.load(flags.data_dir, progress=True)
    folds = {number: fold(dataset, number, flags.parts) for number in flags.folds}
    data, table = data_digest(dataset), []
    for title in flags.candidates:
        runs = []
        for number, part in folds.items():
            chosen = repr(CANDIDATES[title])
            made_from = {"candidate": chosen, "fold": number, "parts": flags.parts, "seed": flags.seed, "data": data}
            name = hashlib.sha256(repr(made_from).encode()).hexdigest()[:12]
            make = functools.partial(posteriors, CANDIDATES[title], part, flags.seed)
            runs.append(kept(flags.output_dir / f"{name}.json", made_from, make))
        table.append(cells(title, runs, [part.dev for part in folds.values()]))
        print(*table[-1], sep=", ", flush=True)
    print(
        f"\n{dataset.source}; trained on {', '.join(map(str, flags.folds))} of {flags.parts} parts, seed {flags.seed}\n"
    )
    titles = (
        "keyword accuracy, %",
        "misses at 1 %, %",
        "misses at 0.3 %, %",
        "cross-entropy, nats",
        "background taken, %",
    )
    print(markdown_table(("candidate", *titles), table))


if __name__ == "__main__":
    main()
