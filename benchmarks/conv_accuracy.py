"""Accuracy of DS-CNN and TC-ResNet at every width, trained and post-training, over seeds: part of `make accuracy`.

    python -m benchmarks.conv_accuracy --data_dir=... --seeds=5

For each seed a float model is trained. From it come, at 8, 4, 3 and 2 bits (first and last layer at 8), a model trained
on in two stages and one quantized without training on 512 training windows. All are converted and scored on the test
split in the interpreter: the float model by the stock one, the others as packed files by `subbyte.kernels`. Results are
kept under build/accuracy, and used again only for the same recipe, code and data. Prints Markdown: mean and deviation
over seeds, and a 95 % bootstrap interval of the mean over speaker groups.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subbyte.keyword_spotting.augment import Augmentation, training_windows
from subbyte.keyword_spotting.data import Dataset
from subbyte.keyword_spotting.demo import stock_tflite
from subbyte.keyword_spotting.evaluate import interpreter_logits
from subbyte.keyword_spotting.features import Normalization
from subbyte.keyword_spotting.metrics import keyword_accuracy, moving_average
from subbyte.keyword_spotting.train import TrainingRecipe, train
from subbyte.reports import arena_bytes

from .accuracy import METRICS, code_digest, kept, metric_cells, percent
from .networks import open_interpreter
from .paper.training import data_digest
from .tables import markdown_table

WIDTHS = (8, 4, 3, 2)
#: Training windows and updates of 512: what two cores do in half an hour for each network.
TRAINING = {"ds_cnn": (8_192, 128), "tc_resnet": (16_384, 768)}


@dataclasses.dataclass(frozen=True)
class Form:
    """One row: how a network's weights are made. No bits are float."""

    bits: int | None
    trained: bool = True

    @property
    def title(self) -> str:
        if self.bits is None:
            return "float"
        return f"{self.bits} bits, {'two stages' if self.trained else 'post-training'}"


FORMS = (Form(None), *(Form(bits) for bits in WIDTHS), *(Form(bits, trained=False) for bits in WIDTHS))


class Maker:
    """Trains the float model of one network and seed when it is first needed, and makes the others from it."""

    def __init__(self, name: str, dataset: Dataset, seed: int, recipe: TrainingRecipe, folder: Path) -> None:
        self.name, self.dataset, self.seed, self.recipe, self.folder = name, dataset, seed, recipe, folder

    @functools.cached_property
    def floating(self) -> Any:
        return train(self.name, self.dataset, self.seed, recipe=self.recipe, progress=True)

    @functools.cached_property
    def _calibration(self) -> NDArray[np.float32]:
        dataset, recipe = self.dataset, self.recipe
        raw, _ = training_windows(dataset.train, 512, dataset.classes, recipe.augmentation, self.seed + 1)
        return self.floating.normalization(raw)

    def path(self, form: Form) -> Path:
        return self.folder / f"{self.name}-{self.seed}-{form.title.replace(', ', '-').replace(' ', '_')}.tflite"

    def logits(self, form: Form) -> NDArray[np.float32]:
        """Writes the file, and gives its logits on the test split."""
        normalization: Normalization = self.floating.normalization
        path = self.path(form)
        path.write_bytes(self._file(form))
        interpreter = open_interpreter(path, packed=form.bits is not None)
        return moving_average(interpreter_logits(interpreter, normalization(self.dataset.test.views())))

    def _file(self, form: Form) -> bytes:
        from subbyte import converter, keras_layers

        if form.bits is None:
            return stock_tflite(self.floating.model)
        if form.trained:
            trained = train(
                self.name, self.dataset, self.seed, recipe=self.recipe, bits=form.bits, start=self.floating.model,
                progress=True,
            )  # fmt: skip
            return converter.convert(trained.model).tflite
        recipe = keras_layers.Recipe(bits=form.bits)
        made = keras_layers.quantize_post_training(self.floating.model, self._calibration, recipe)
        return converter.convert(made.model).tflite


def rows(name: str, runs: dict[Form, NDArray[np.float32]], makers: list[Maker], test: Any) -> Iterator[list[str]]:
    for form, logits in runs.items():
        tflite = makers[0].path(form).read_bytes()
        yield [
            f"{name}, {form.title}",
            *metric_cells(logits, test),
            f"{len(tflite):,}",
            f"{arena_bytes(tflite):,}",
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="recordings; default: $SUBBYTE_DATA, else synthetic speech")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=TRAINING, default=list(TRAINING))
    parser.add_argument("--output_dir", type=Path, default=Path("build/accuracy"))
    flags = parser.parse_args()

    flags.output_dir.mkdir(parents=True, exist_ok=True)
    dataset = Dataset.load(flags.data_dir, progress=True)
    test = dataset.test
    table = []
    for name in flags.models:
        windows, updates = TRAINING[name]
        # Its figures are of clips alone, for which smoothed labels and fewer windows without words are better.
        recipe = TrainingRecipe(
            windows=windows,
            updates=updates,
            batch_size=512,
            label_smoothing=0.1,
            augmentation=Augmentation(background=0.15),
        )
        common = {"code": code_digest(), "data": data_digest(dataset), "model": name}
        common["recipe"] = json.loads(json.dumps(dataclasses.asdict(recipe)))
        runs: dict[Form, list[NDArray[np.float32]]] = {form: [] for form in FORMS}
        makers = [Maker(name, dataset, seed, recipe, flags.output_dir) for seed in range(flags.seeds)]
        for maker in makers:
            for form in FORMS:
                made_from = common | dataclasses.asdict(form) | {"seed": maker.seed}
                logits = kept(maker.path(form).with_suffix(".json"), made_from, functools.partial(maker.logits, form))
                runs[form].append(logits)
                print(f"{name}, seed {maker.seed}, {form.title}: {percent(keyword_accuracy(logits, test.labels))} %")
        table += rows(name, {form: np.stack(logits) for form, logits in runs.items()}, makers, test)
    print(f"\n{dataset.source}; test split: {len(test.labels)} clips, {len(np.unique(test.speakers))} speaker groups;")
    print(f"{flags.seeds} seeds: mean ± deviation over seeds [95 % interval of the mean over speaker groups]\n")
    print(markdown_table(["model", *(f"{metric}, %" for metric in METRICS), "file bytes", "arena bytes"], table))


if __name__ == "__main__":
    main()
