"""The demonstration behind `make demo`: train, pack, check every output, and compare with float.

Trains M0 (float) and M4 (4-bit weights), converts M0 with TensorFlow's own converter and M4 with ours, runs all of them
on the test split and prints one table. The packed model must give the codes of Keras and of the int8 model that any
interpreter runs; a difference is counted in the table and fails the demonstration.
"""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import Dataset, Split
from .evaluate import Report, interpreter_logits, interpreter_outputs, keras_logits, quantize, report
from .metrics import Interval
from .train import Trained, train


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
        outputs: how many were compared.
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
    epochs: int | None = None,
) -> list[Line]:
    """Runs the demonstration; writes kws.keras, kws.tflite, kws_int8.tflite, float.keras, float.tflite and their .npz.

    Args:
        output_dir: where the files go.
        data_dir: see `Dataset.load`.
        seed: of both trainings.
        epochs: in place of the recipe's, for a quick look.

    Returns:
        The lines of the table.

    Raises:
        ValueError: bad data, or an output code of the packed model differs from Keras.
    """
    from rich.console import Console

    console, folder = Console(), Path(output_dir)
    dataset = Dataset.load(data_dir, progress=True)
    console.print(f"Data: {dataset.source}")
    trained = []
    for name, what in (("M0", "float"), ("M4", "4-bit weights in two stages")):
        trained.append(train(name, dataset, seed, epochs, progress=True))
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
    return [
        _line("M0 float\nstock", 32, files["float.tflite"], stock_interpreter, float_model, test),
        _line("M4 int8\nstock", 8, files["kws_int8.tflite"], stock_interpreter, packed_model, test),
        _line("M4 packed\nsubbyte", 4, files["kws.tflite"], kernels.Interpreter, packed_model, test),
    ]


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


def median_microseconds(interpreter: Any, inputs: NDArray[Any], runs: int = 2000) -> float:
    """Median time of `interpreter.invoke()` alone, called from Python, on `inputs` [n, ...] in turn."""
    interpreter.allocate_tensors()
    index, seconds = interpreter.get_input_details()[0]["index"], []
    for run in range(runs):
        interpreter.set_tensor(index, inputs[run % len(inputs)][np.newaxis])
        begin = time.perf_counter()
        interpreter.invoke()
        seconds.append(time.perf_counter() - begin)
    return 1e6 * float(np.median(seconds))


def _line(name: str, bits: int, content: bytes, make: Any, trained: Trained, test: Split) -> Line:
    interpreter = make(model_content=content, num_threads=1)
    inputs = trained.normalization(test.inputs())
    logits = interpreter_logits(interpreter, inputs)
    expected, sink = keras_logits(trained.model, inputs), interpreter.get_output_details()[0]
    different = None
    if sink["quantization"][0] > 0.0:
        different = int(np.sum(interpreter_outputs(interpreter, inputs) != quantize(expected, sink)))
    microseconds = median_microseconds(interpreter, quantize(inputs, interpreter.get_input_details()[0]))
    return Line(name, bits, len(content), report(logits, test), microseconds, different, logits.size)


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
