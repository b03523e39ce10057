"""What a conversion costs: seconds and memory beside TensorFlow's own int8 conversion of the same float model.

    python -m benchmarks.conversion_cost                                          # MobileNetV2 at 96x96
    python -m benchmarks.conversion_cost --model ResNet50 EfficientNetB0 --size 224

Prints a Markdown table. The models have random weights, since cost does not depend on values. Every step runs in a
process of its own, which has first done the same to a net of two layers, so that libraries and whatever they make once
do not count. CPU seconds are those of all threads. Peak memory is the largest resident set of the process
(`ru_maxrss`), less that before the model was loaded, in multiples of the model's float32 weights. Linux.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from subbyte import keras_layers as ql
from subbyte.converter.conversion import Conversion
from subbyte.converter.verification import verify

from .tables import markdown_table

MODELS = ("MobileNetV2", "ResNet50", "EfficientNetB0")
BITS = 4


@dataclass(frozen=True)
class Cost:
    """One step, measured: seconds on the clock, CPU seconds of all threads, and bytes that the peak rose by."""

    seconds: float
    cpu_seconds: float
    memory: int

    def __add__(self, other: Cost) -> Cost:
        """Both, one after the other in processes of their own."""
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds, max(self.memory, other.memory))


@dataclass(frozen=True)
class Files:
    """The float model and its inputs [samples, ...], and where the quantized one stands once it is made."""

    folder: Path

    @property
    def floating(self) -> Path:
        return self.folder / "float.keras"

    @property
    def quantized(self) -> Path:
        return self.folder / "quantized.keras"

    @property
    def inputs(self) -> Path:
        return self.folder / "inputs.npy"

    @classmethod
    def of(cls, folder: Path, model: tf.keras.Model, samples: int) -> Files:
        files = cls(folder)
        model.save(files.floating)
        rng = np.random.default_rng(0)
        np.save(files.inputs, rng.standard_normal((samples, *model.input_shape[1:]), np.float32))
        return files


def _load(path: Path) -> tf.keras.Model:
    return tf.keras.models.load_model(path, compile=False)


def _tensorflow(files: Files) -> Callable[[], object]:
    """TensorFlow's int8 file of the float model."""
    model, inputs = _load(files.floating), np.load(files.inputs)

    def representative() -> Iterator[list[np.ndarray]]:
        yield from ([sample[np.newaxis]] for sample in inputs)

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert


def _quantize(files: Files) -> Callable[[], object]:
    """Quantization without training; its model is saved for the next steps."""
    model, inputs = _load(files.floating), np.load(files.inputs)
    return lambda: ql.quantize_post_training(model, inputs, ql.Recipe(BITS)).model.save(files.quantized)


def _convert(files: Files) -> Callable[[], object]:
    """From the quantized model to the packed file."""
    model = _load(files.quantized)
    return lambda: Conversion.start(model).write()


def _verify(files: Files) -> Callable[[], object]:
    """The packed file against the int8 target and Keras, on all inputs; the conversion is not timed."""
    conversion, inputs = Conversion.start(_load(files.quantized)), np.load(files.inputs)
    return lambda: verify(conversion, inputs)


STEPS = {"TensorFlow": _tensorflow, "quantize": _quantize, "convert": _convert, "verify": _verify}


def _tiny(folder: Path) -> Files:
    """Two layers, float and quantized."""
    layers = tf.keras.layers
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)])
    files = Files.of(folder, model, 2)
    _quantize(files)()
    return files


def measure(step: str, files: Files) -> Cost:
    """Does the step in this process, which has a tiny model warm up first."""
    with tempfile.TemporaryDirectory() as folder:
        STEPS[step](_tiny(Path(folder)))()
    before = _peak()
    run = STEPS[step](files)
    start, cpu_start = time.perf_counter(), time.process_time()
    run()
    return Cost(time.perf_counter() - start, time.process_time() - cpu_start, _peak() - before)


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_fresh(step: str, files: Files) -> Cost:
    """Does the step in a new process. Raises subprocess.CalledProcessError where that fails."""
    command = [sys.executable, "-m", __name__ if __name__ != "__main__" else "benchmarks.conversion_cost"]
    command += ["--step", step, str(files.folder.resolve())]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.PIPE, text=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def table(name: str, files: Files, weight_bytes: int, run: Callable[[str, Files], Cost]) -> str:
    """A row for each step, and one for quantization and conversion together, with ratios to TensorFlow's conversion."""
    costs = {step: run(step, files) for step in STEPS}
    costs["quantize and convert"] = costs["quantize"] + costs["convert"]
    reference = costs["TensorFlow"]
    rows = [
        [
            label, f"{cost.seconds:.1f}", f"{cost.cpu_seconds:.1f}",
            f"{cost.cpu_seconds / reference.cpu_seconds:.2f}",
            f"{cost.memory / 2**20:,.0f}", f"{cost.memory / weight_bytes:.1f}",
        ]
        for label, cost in costs.items()
    ]  # fmt: skip
    head = [name, "seconds", "CPU seconds", "of TensorFlow's", "peak, MiB", "times the weights"]
    return markdown_table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["MobileNetV2"], choices=MODELS)
    parser.add_argument("--size", type=int, default=96, help="pixels of a side")
    parser.add_argument("--samples", type=int, default=32, help="inputs to calibrate and to verify with")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:
        print(json.dumps(asdict(measure(options.step[0], Files(Path(options.step[1]))))))
        return
    for name in options.model:
        with tempfile.TemporaryDirectory() as folder:
            build = functools.partial(getattr(tf.keras.applications, name), weights=None, classes=100)
            model = build(input_shape=(options.size, options.size, 3))
            files, weight_bytes = Files.of(Path(folder), model, options.samples), 4 * model.count_params()
            del model
            print(table(f"{name}, {options.size}x{options.size}", files, weight_bytes, measure_fresh), flush=True)


if __name__ == "__main__":
    main()
