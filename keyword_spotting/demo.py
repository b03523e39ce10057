"""The demonstration behind `make demo`: train, pack, check every output, and compare with float.

Trains M0 (float) and M4 (4-bit weights), converts M0 with TensorFlow's own converter and M4 with ours, runs all of them
on the test split and prints one table. The packed model must give the codes of Keras and of the int8 model that any
interpreter runs; a difference is counted in the table and fails the demonstration.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .data import Dataset, Split
from .evaluate import Report, interpreter_logits, interpreter_outputs, keras_logits, quantize, report
from .intervals import Interval
from .metrics import moving_average
from .train import Trained, TrainingRecipe, train


@dataclass(frozen=True)
class Line:
    """One model of the table.

    Attributes:
        name: what is run, and by which interpreter.
        weight_bits: 32 for float.
        file_bytes: of the .tflite file.
        found: accuracy on the test split.
        microseconds: of one inference, median.
        different: output codes that differ from Keras; None for the float model.
        outputs: how many were compared: every class of every window of every clip.
    """

    name: str
    weight_bits: int
    file_bytes: int
    found: Report
    microseconds: float
    different: int | None
    outputs: int


def demo(
    output_dir: str | Path = "build/demo",
    data_dir: str | Path | None = None,
    seed: int = 0,
    updates: int = TrainingRecipe.updates,
) -> list[Line]:
    """Runs the demonstration; writes kws.keras, kws.tflite, kws_int8.tflite, float.keras, float.tflite and their .npz.

    Args:
        output_dir: where the files go.
        data_dir: see `Dataset.load`.
        seed: of both trainings.
        updates: of stage 1; fewer than the recipe's for a quick look.

    Returns:
        The lines of the table.

    Raises:
        ValueError: bad data, or an output code of the packed model differs from Keras.
    """
    from subbyte.console import console as make_console

    console, folder = make_console(), Path(output_dir)
    dataset = Dataset.load(data_dir, progress=True)
    console.print(f"Data: {dataset.source}")
    trained = []
    for name, what in (("M0", "float"), ("M4", "4-bit weights in two stages")):
        trained.append(train(name, dataset, seed, TrainingRecipe(updates=updates), progress=True))
        console.print(f"Trained {name}, {what}, in {trained[-1].seconds:.0f} s")
    lines = compare(trained[0], trained[1], dataset.test, folder)
    console.print(table(lines, dataset.source))
    console.print(f"Files are in {folder}")
    for line in lines:
        if line.different:
            name = line.name.splitlines()[0]
            raise ValueError(f"{name}: {line.different} of {line.outputs} output codes differ from Keras")
    return lines


def compare(float_model: Trained, packed_model: Trained, test: Split, folder: Path) -> list[Line]:
    """Saves and converts both models into `folder` and runs them on `test`."""
    from subbyte import converter, kernels

    float_model.save(folder / "float.keras")
    packed_model.save(folder / "kws.keras")
    files = {
        "float.tflite": stock_tflite(float_model.model),
        "kws_int8.tflite": converter.convert(packed_model.model, target="int8", io="int8").tflite,
        "kws.tflite": converter.convert(packed_model.model, target="packed", io="int8").tflite,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
        model = float_model if name == "float.tflite" else packed_model
        model.normalization.save((folder / name).with_suffix(".npz"))
    runs = [
        _Run("M0 float\nstock", 32, files["float.tflite"], stock_interpreter, float_model, test),
        _Run("M4 int8\nstock", 8, files["kws_int8.tflite"], stock_interpreter, packed_model, test),
        _Run("M4 int8\nstock, reference", 8, files["kws_int8.tflite"], reference_interpreter, packed_model, test),
        _Run("M4 packed\nsubbyte", 4, files["kws.tflite"], kernels.Interpreter, packed_model, test),
    ]
    return [run.line(time) for run, time in zip(runs, median_microseconds(runs), strict=True)]


def stock_tflite(model: Any) -> bytes:
    """The float .tflite of a Keras model with a batch of 1, by TensorFlow's converter."""
    import tensorflow as tf

    inputs = tf.keras.Input(batch_shape=(1, *model.input_shape[1:]))
    with contextlib.redirect_stdout(io.StringIO()):  # the converter tells of its temporary files
        content: bytes = tf.lite.TFLiteConverter.from_keras_model(tf.keras.Model(inputs, model(inputs))).convert()
    return content


def stock_interpreter(model_content: bytes, num_threads: int) -> Any:
    """The stock LiteRT interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=model_content, num_threads=num_threads)


def reference_interpreter(model_content: bytes, num_threads: int) -> Any:
    """The stock interpreter with its reference kernels instead of XNNPACK's."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    return Interpreter(
        model_content=model_content,
        num_threads=num_threads,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )


class _Run:
    """A model in an interpreter, on the test split."""

    def __init__(self, name: str, bits: int, content: bytes, make: Any, trained: Trained, test: Split) -> None:
        self.name, self.bits, self.size, self.test = name, bits, len(content), test
        self.interpreter = make(model_content=content, num_threads=1)
        self.inputs = trained.normalization(test.views())
        self.logits = interpreter_logits(self.interpreter, self.inputs)
        sink, self.different = self.interpreter.get_output_details()[0], None
        if sink["quantization"][0] > 0.0:
            expected = quantize(keras_logits(trained.model, self.inputs), sink)
            self.different = int(np.sum(interpreter_outputs(self.interpreter, self.inputs) != expected))

    def timer(self) -> Callable[[int], float]:
        """A function that gives the seconds of `interpreter.invoke()` alone on the nth input."""
        source = self.interpreter.get_input_details()[0]
        rows = quantize(self.inputs.reshape(-1, self.inputs.shape[-1]), source)

        def seconds(run: int) -> float:
            self.interpreter.set_tensor(source["index"], rows[run % len(rows)][np.newaxis])
            begin = time.perf_counter()
            self.interpreter.invoke()
            return time.perf_counter() - begin

        return seconds

    def line(self, microseconds: float) -> Line:
        found = report(moving_average(self.logits), self.test)
        return Line(self.name, self.bits, self.size, found, microseconds, self.different, self.logits.size)


def median_microseconds(runs: Sequence[_Run], rounds: int = 40, times: int = 50) -> list[float]:
    """Median time of one inference of each run, called from Python; they take turns, so all see the same machine."""
    timers, seconds = [run.timer() for run in runs], np.empty((len(runs), rounds, times))
    for turn in range(rounds):
        for which, timer in enumerate(timers):
            seconds[which, turn] = [timer(turn * times + time) for time in range(times)]
    return [1e6 * float(median) for median in np.median(seconds, axis=(1, 2))]


def table(lines: list[Line], source: str) -> Any:
    """The rich table of the demonstration."""
    from rich import box
    from rich.table import Table

    def with_interval(value: Interval) -> str:
        return str(value).replace(" [", "\n[")

    found = lines[0].found
    title = f"Test split: {found.clips} clips, {found.speakers} speaker groups [95 % interval over them]"
    grid = Table(title=title, caption=source, box=box.SIMPLE_HEAVY, padding=0)
    grid.add_column("", no_wrap=True)
    measured = ("keyword\naccuracy", "misses at\n1 % alarms", "µs per\ninference", "unlike\nKeras")
    for column in ("weight\nbits", "file\nbytes", *measured):
        grid.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        unlike = "-" if line.different is None else f"{line.different} of {line.outputs}"
        grid.add_row(
            line.name,
            str(line.weight_bits),
            f"{line.file_bytes:,}",
            with_interval(line.found.accuracy),
            with_interval(line.found.misses[0]),
            f"{line.microseconds:.1f}",
            unlike,
        )
    return grid
