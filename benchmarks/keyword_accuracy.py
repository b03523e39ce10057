"""Accuracy of float and low-bit keyword models over seeds, and what the tanh quantizer is worth: `make accuracy`.

    python benchmarks/keyword_accuracy.py --data_dir=... --seeds=5

Each configuration and seed is trained once, converted, run on the test split and kept as JSON under build/accuracy; a
run that was interrupted goes on where it stopped. A result is used again only for the same recipe, code of the
training pipeline, and data. Low-bit models are scored as packed .tflite files in `subbyte.kernels.Interpreter`, the
float model in Keras. Prints Markdown: mean and deviation over seeds, and a 95 % bootstrap interval of the mean over
speaker groups; differences are paired, on the same speakers.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from subbyte import keras_layers, keyword_spotting
from subbyte.keyword_spotting.data import Dataset, Split
from subbyte.keyword_spotting.evaluate import FALSE_ALARMS, interpreter_logits, keras_logits
from subbyte.keyword_spotting.metrics import Metric, bootstrap, keyword_accuracy, miss_rate, moving_average
from subbyte.keyword_spotting.train import Recipe, train

METRICS: dict[str, Metric] = {"keyword accuracy": keyword_accuracy} | {
    f"misses at {100 * rate:g} % cross-keyword false alarms": functools.partial(miss_rate, false_alarms=rate)
    for rate in FALSE_ALARMS
}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One row: a model, and a kernel quantizer by its name in `keras_layers.quantizers`, None for float."""

    title: str
    model: str
    quantizer: str | None


CONFIGURATIONS = (
    Configuration("M0, float", "M0", None),
    Configuration("M3, 5 bits, Tanh", "M3", "Tanh"),
    Configuration("M3, 5 bits, Linear", "M3", "Linear"),
    Configuration("M4, 4 bits, Tanh", "M4", "Tanh"),
    Configuration("M4, 4 bits, Linear", "M4", "Linear"),
)
PAIRS = ((3, 0), (1, 2), (3, 4))  # rows compared: first minus second


def code_digest() -> str:
    """Of every file that a trained model depends on."""
    folders = (Path(str(package.__file__)).parent for package in (keras_layers, keyword_spotting))
    files = (path for folder in folders for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def data_digest(dataset: Dataset) -> str:
    """Of the recordings that are trained on and reported."""
    arrays = (dataset.train.keywords, dataset.train.speech, dataset.train.noise, dataset.test.keywords)
    return hashlib.sha256(b"".join(hashlib.sha256(array).digest() for array in arrays)).hexdigest()[:16]


def measure(configuration: Configuration, dataset: Dataset, seed: int, recipe: Recipe) -> NDArray[np.float32]:
    """Trains one model; the log posteriors [clips, classes] of its deployed form on the test split."""
    quantizer = configuration.quantizer and getattr(keras_layers.quantizers, configuration.quantizer)
    trained = train(configuration.model, dataset, seed, recipe=recipe, quantizer=quantizer, progress=True)
    inputs = trained.normalization(dataset.test.views())
    if configuration.quantizer is None:
        return moving_average(keras_logits(trained.model, inputs))
    from subbyte import converter, kernels

    content = converter.convert(trained.model, target="packed").tflite
    return moving_average(interpreter_logits(kernels.Interpreter(model_content=content, num_threads=1), inputs))


def kept(file: Path, made_from: dict[str, Any], make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """The logits in `file` if it was made from the same, else new ones, which are then kept there."""
    if file.is_file():
        content = json.loads(file.read_text())
        if content["made_from"] == made_from:
            return np.array(content["logits"], np.float32)
    logits = make()
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps({"made_from": made_from, "logits": logits.astype(float).round(5).tolist()}))
    partial.replace(file)
    return logits


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def metric_cells(logits: NDArray[np.float32], test: Split) -> list[str]:
    """Each metric of one configuration's logits [seeds, clips, classes]: mean, deviation over seeds, interval."""
    cells = []
    for metric in METRICS.values():
        deviation = np.std([metric(run, test.labels) for run in logits], ddof=1 if len(logits) > 1 else 0)
        found = bootstrap(metric, logits, test.labels, test.speakers)
        interval = f"[{percent(found.low)}, {percent(found.high)}]"
        cells.append(f"{percent(found.value)} ± {percent(float(deviation))} {interval}")
    return cells


def accuracy_table(runs: dict[str, NDArray[np.float32]], test: Split) -> Iterable[str]:
    """Markdown: a row a configuration, from its logits [seeds, clips, classes]."""
    yield "| model | " + " | ".join(f"{name}, %" for name in METRICS) + " |"
    yield "|---" * (1 + len(METRICS)) + "|"
    for title, logits in runs.items():
        yield f"| {title} | " + " | ".join(metric_cells(logits, test)) + " |"


def difference_table(runs: dict[str, NDArray[np.float32]], test: Split) -> Iterable[str]:
    """Markdown: paired differences in percentage points."""
    yield "| difference | " + " | ".join(f"{name}, points" for name in METRICS) + " |"
    yield "|---" * (1 + len(METRICS)) + "|"
    titles = [configuration.title for configuration in CONFIGURATIONS]
    for first, second in ((titles[a], titles[b]) for a, b in PAIRS):
        cells = []
        for metric in METRICS.values():
            found = bootstrap(metric, runs[first], test.labels, test.speakers, against=runs[second])
            cells.append(f"{100 * found.value:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]")
        yield f"| {first} minus {second} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="recordings; default: $SUBBYTE_DATA, else synthetic speech")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--output_dir", type=Path, default=Path("build/accuracy"))
    flags = parser.parse_args()

    flags.output_dir.mkdir(parents=True, exist_ok=True)
    dataset = Dataset.load(flags.data_dir, progress=True)
    recipe = Recipe(epochs=flags.epochs)
    settings = json.loads(json.dumps(dataclasses.asdict(recipe)))
    common = {"recipe": settings, "code": code_digest(), "data": data_digest(dataset)}
    runs: dict[str, list[NDArray[np.float32]]] = {configuration.title: [] for configuration in CONFIGURATIONS}
    for seed in range(flags.seeds):
        for configuration in CONFIGURATIONS:
            name = "-".join(part for part in (configuration.model, configuration.quantizer, str(seed)) if part)
            made_from = common | dataclasses.asdict(configuration) | {"seed": seed}
            make = functools.partial(measure, configuration, dataset, seed, recipe)
            logits = kept(flags.output_dir / f"{name}.json", made_from, make)
            runs[configuration.title].append(logits)
            print(f"seed {seed}, {configuration.title}: {percent(keyword_accuracy(logits, dataset.test.labels))} %")
    stacked = {title: np.stack(logits) for title, logits in runs.items()}
    test = dataset.test
    print(f"\n{dataset.source}; test split: {len(test.labels)} clips, {len(np.unique(test.speakers))} speaker groups;")
    print(f"{flags.seeds} seeds: mean ± deviation over seeds [95 % interval of the mean over speaker groups]\n")
    print("\n".join(accuracy_table(stacked, test)), end="\n\n")
    print("\n".join(difference_table(stacked, test)))


if __name__ == "__main__":
    main()
