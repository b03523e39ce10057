"""TFMOT's quantization-aware training in 8 bits beside ours in 8, 4 and 2, through TFMOT's own quantize_apply.

    python -m benchmarks.tfmot_comparison

Three networks learn wake words in float and are fine-tuned from there, all for the same number of epochs; what is
measured are the converted files. Each is kept under the output folder, and a run that was interrupted goes on where it
stopped; give another folder, or empty it, to start anew. Prints Markdown.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TFMOT knows no other Keras
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
from numpy.typing import NDArray

from subbyte import converter
from subbyte import keras_layers as ql
from subbyte.keras_layers.tfmot import SubbyteScheme
from subbyte.keyword_spotting.augment import Augmentation, training_windows
from subbyte.keyword_spotting.data import Dataset
from subbyte.keyword_spotting.features import KEPT_FRAMES, MEL_BINS, Normalization
from subbyte.keyword_spotting.intervals import bootstrap
from subbyte.keyword_spotting.metrics import keyword_accuracy
from subbyte.reports import Stopwatch, Timing, processor_name

from .networks import open_interpreter
from .tables import figure, markdown_table

layers = tf.keras.layers
Floats = NDArray[np.float32]

FLOAT, TFMOT = "float32", "TFMOT, 8 bits"
#: Arguments of `SubbyteScheme`.
SCHEMES: dict[str, dict[str, Any]] = {f"subbyte, {bits} bits": {"bits": bits} for bits in (8, 4, 2)}
#: Of networks with depthwise convolutions as well: these are small, and lose most.
WITH_DEPTHWISE = {"subbyte, 2 bits, depthwise 8": {"bits": 2, "layers": {"depthwise*": 8}}}


def dense(x: Any, classes: int) -> Any:
    x = layers.Flatten()(x)
    for _ in range(3):
        x = layers.Dense(128, activation="relu")(x)
    return layers.Dense(classes)(x)


def ds_cnn(x: Any, classes: int) -> Any:
    """A small one of arXiv 1711.07128."""
    x = _normalized(layers.Conv2D(48, (10, 4), strides=2, padding="same", use_bias=False), x)
    for _ in range(3):
        x = _normalized(layers.DepthwiseConv2D(3, padding="same", use_bias=False), x)
        x = _normalized(layers.Conv2D(48, 1, use_bias=False), x)
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def resnet(x: Any, classes: int) -> Any:
    """Three residual blocks of two 3x3 convolutions."""
    x = _normalized(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False), x)
    for channels, step in ((16, 1), (32, 2), (48, 2)):
        inner = _normalized(layers.Conv2D(channels, 3, strides=step, padding="same", use_bias=False), x)
        inner = _normalized(layers.Conv2D(channels, 3, padding="same", use_bias=False), inner, relu=False)
        shortcut = x if step == 1 else layers.Conv2D(channels, 1, strides=step)(x)
        x = layers.ReLU()(layers.Add()([inner, shortcut]))
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


NETWORKS: dict[str, Callable[[Any, int], Any]] = {"dense": dense, "DS-CNN": ds_cnn, "ResNet": resnet}


def _normalized(layer: Any, x: Any, relu: bool = True) -> Any:
    x = layers.BatchNormalization()(layer(x))
    return layers.ReLU()(x) if relu else x


@dataclass(frozen=True)
class Task:
    """What the networks learn: normalised features [windows, KEPT_FRAMES, MEL_BINS, 1] and class numbers."""

    train: tuple[Floats, NDArray[np.int64]]
    test: tuple[Floats, NDArray[np.int64]]
    speakers: NDArray[np.str_]
    classes: int
    source: str

    @classmethod
    def of(cls, dataset: Dataset, windows: int) -> Task:
        raw, labels = training_windows(dataset.train, windows, dataset.classes, Augmentation(), seed=0)
        normalization, shape = Normalization.fit(raw), (-1, KEPT_FRAMES, MEL_BINS, 1)
        return cls(
            (normalization(raw).reshape(shape), labels),
            (normalization(dataset.test.inputs()).reshape(shape), dataset.test.labels),
            dataset.test.speakers,
            dataset.classes,
            dataset.source,
        )


@dataclass(frozen=True)
class Trainer:
    """Makes the files of one network in `folder`."""

    name: str
    task: Task
    folder: Path
    float_epochs: int
    epochs: int

    def file(self, format_name: str, target: str = "packed") -> Path:
        stem = f"{self.name}-{format_name}".replace(", ", "-").replace(" ", "-")
        return self.folder / f"{stem}{'' if target == 'packed' else '-' + target}.tflite"

    @property
    def schemes(self) -> dict[str, dict[str, Any]]:
        return SCHEMES | (WITH_DEPTHWISE if self.name == "DS-CNN" else {})

    def run(self) -> None:
        """Trains and converts what is not there yet."""
        self._missing(self.file(FLOAT), lambda: stock_tflite(self._float_model(), quantized=False))
        self._missing(self.file(TFMOT), lambda: stock_tflite(self._tfmot(), quantized=True))
        for name, arguments in self.schemes.items():
            trained = functools.cache(functools.partial(self._subbyte, arguments))
            for target in ("int8", "packed"):
                convert = functools.partial(_converted, trained, target)
                self._missing(self.file(name, target), convert)

    def _missing(self, path: Path, content: Callable[[], bytes]) -> None:
        if not path.is_file():
            print(f"making {path}", flush=True)
            partial = path.with_suffix(".part")
            partial.write_bytes(content())
            partial.replace(path)

    def _float_model(self) -> tf.keras.Model:
        path = self.folder / f"{self.name}.keras"
        if not path.is_file():
            tf.keras.utils.set_random_seed(0)
            x = tf.keras.Input(self.task.train[0].shape[1:])
            model = tf.keras.Model(x, NETWORKS[self.name](x, self.task.classes), name=self.name)
            self._fit(model, 4e-3, self.float_epochs)
            model.save(path)
        return tf.keras.models.load_model(path, compile=False)

    def _tfmot(self) -> tf.keras.Model:
        model = tfmot.quantization.keras.quantize_model(self._float_model())
        self._fit(model, 1e-3, self.epochs)
        return model

    def _subbyte(self, arguments: dict[str, Any]) -> tf.keras.Model:
        annotated = tfmot.quantization.keras.quantize_annotate_model(self._float_model())
        scheme = SubbyteScheme(**arguments, calibration=self.task.train[0][:512])
        model = tfmot.quantization.keras.quantize_apply(annotated, scheme=scheme)
        self._fit(model, 1e-3, self.epochs, [ql.TwoStage(second_stage_epochs=1)])
        return model

    def _fit(self, model: tf.keras.Model, rate: float, epochs: int, callbacks: list[Any] | None = None) -> None:
        tf.keras.utils.set_random_seed(1)
        inputs, labels = self.task.train
        updates = epochs * -(-len(inputs) // 128)
        optimizer = tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(rate, updates, alpha=0.01))
        model.compile(optimizer, tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(inputs, labels, 128, epochs, verbose=0, callbacks=callbacks)


def _converted(trained: Callable[[], tf.keras.Model], target: str) -> bytes:
    return converter.convert(trained(), target=target).tflite


def stock_tflite(model: tf.keras.Model, quantized: bool) -> bytes:
    """The model as TensorFlow's converter alone writes it, for a batch of 1."""
    call = tf.function(lambda x: model(x, training=False), autograph=False)
    concrete = call.get_concrete_function(tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32))
    lite = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    if quantized:
        lite.optimizations = [tf.lite.Optimize.DEFAULT]
    return lite.convert()


class Runner:
    """A model file in the interpreter, one thread."""

    def __init__(self, path: Path, packed: bool) -> None:
        self._interpreter = open_interpreter(path, packed)
        self._interpreter.allocate_tensors()
        self._x = self._interpreter.get_input_details()[0]["index"]
        self._y = self._interpreter.get_output_details()[0]["index"]
        self.invoke = self._interpreter.invoke

    def outputs(self, inputs: Floats) -> Floats:
        """[samples, classes]"""
        rows = []
        for row in inputs:
            self._interpreter.set_tensor(self._x, row[np.newaxis])
            self.invoke()
            rows.append(self._interpreter.get_tensor(self._y)[0])
        return np.stack(rows)


def rows(trainer: Trainer) -> list[tuple[str, ...]]:
    """The rows of one network, one for each format."""
    task, formats = trainer.task, (FLOAT, TFMOT, *trainer.schemes)
    runners = {name: Runner(trainer.file(name), packed=name in trainer.schemes) for name in formats}
    outputs = {name: runner.outputs(task.test[0]) for name, runner in runners.items()}
    times: dict[str, Timing] = Stopwatch().time_in_turn({name: runner.invoke for name, runner in runners.items()})
    table = []
    for name in formats:
        unlike = "-"
        if name in trainer.schemes:
            expected = Runner(trainer.file(name, "int8"), packed=False).outputs(task.test[0])
            unlike = f"{np.count_nonzero(outputs[name] != expected)} of {expected.size:,}"
        accuracy = bootstrap(keyword_accuracy, outputs[name], task.test[1], task.speakers)
        size = trainer.file(name).stat().st_size
        table.append((trainer.name, name, str(accuracy), f"{size:,}", figure(1e6 * times[name].minimum), unlike))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="recordings; default: $SUBBYTE_DATA, else synthetic speech")
    parser.add_argument("--output_dir", type=Path, default=Path("build/tfmot"))
    parser.add_argument("--windows", type=int, default=8192, help="to train on")
    parser.add_argument("--float_epochs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=4, help="of fine-tuning; ours spends the last one on stage 2")
    flags = parser.parse_args()

    flags.output_dir.mkdir(parents=True, exist_ok=True)
    task = Task.of(Dataset.load(flags.data_dir, progress=True), flags.windows)
    trainers = [Trainer(name, task, flags.output_dir, flags.float_epochs, flags.epochs) for name in NETWORKS]
    for trainer in trainers:
        trainer.run()
    print(f"\n{task.source}; test split: {len(task.test[1])} clips [95 % interval over speaker groups].")
    print(f"{flags.windows} training windows, {flags.float_epochs} epochs in float and {flags.epochs} of fine-tuning;")
    print(f"{processor_name()}, one thread, the fastest of 31 interleaved rounds.\n")
    header = ("network", "weights", "keyword accuracy", "file, bytes", "µs an invoke", "unlike int8 target")
    print(markdown_table(header, [row for trainer in trainers for row in rows(trainer)]))


if __name__ == "__main__":
    main()
