"""Runs Keras and TFLite models on a split and reports their accuracy with intervals."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .data import Split
from .features import INPUTS, Normalization
from .intervals import Interval, bootstrap
from .metrics import keyword_accuracy, miss_rate

if TYPE_CHECKING:
    import tensorflow as tf
    from rich.table import Table

FALSE_ALARMS = (0.01, 0.003)
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Report:
    """What one model reached on one split.

    Attributes:
        accuracy: keyword accuracy, among keywords and "other".
        misses: miss rate at each rate of FALSE_ALARMS.
        clips: keyword clips in the split.
        speakers: groups that the intervals draw from.
    """

    accuracy: Interval
    misses: tuple[Interval, ...]
    clips: int
    speakers: int


def report(logits: Floats, split: Split) -> Report:
    """Scores `logits` [clips, classes], or [runs, clips, classes] of several seeds, of the clips of `split`."""
    measure = functools.partial(bootstrap, logits=logits, labels=split.labels, speakers=split.speakers)
    misses = tuple(measure(functools.partial(miss_rate, false_alarms=rate)) for rate in FALSE_ALARMS)
    return Report(measure(keyword_accuracy), misses, len(split.labels), len(np.unique(split.speakers)))


def keras_logits(model: tf.keras.Model, inputs: Floats) -> NDArray[np.float32]:
    """Outputs [..., classes] for normalised features [..., INPUTS]."""
    rows = model.predict(inputs.reshape(-1, inputs.shape[-1]), batch_size=1024, verbose=0)
    return np.asarray(rows, np.float32).reshape(*inputs.shape[:-1], -1)


def quantize(values: Floats, details: dict[str, Any]) -> NDArray[Any]:
    """`values` in the number type of a tensor, from an interpreter's details of it: codes where it is quantized."""
    scale, zero_point = details["quantization"]
    if scale == 0.0:
        return np.asarray(values, details["dtype"])
    limits = np.iinfo(details["dtype"])
    codes = np.rint(np.asarray(values, np.float32) / np.float32(scale)) + zero_point
    return np.clip(codes, limits.min, limits.max).astype(details["dtype"])


def dequantize(values: NDArray[Any], details: dict[str, Any]) -> NDArray[np.float32]:
    """The real numbers of a tensor's `values`, from an interpreter's details of it."""
    scale, zero_point = details["quantization"]
    real = values if scale == 0.0 else (values.astype(np.float32) - zero_point) * np.float32(scale)
    return np.asarray(real, np.float32)


def interpreter_outputs(interpreter: Any, inputs: Floats) -> NDArray[Any]:
    """Raw outputs [..., classes], codes where the output is quantized, of a TFLite interpreter with a batch of 1.

    Args:
        interpreter: `subbyte.kernels.Interpreter` or a stock one.
        inputs: normalised features [..., INPUTS]; quantized as the model's input asks.

    Raises:
        ValueError: the model takes another input.
    """
    interpreter.allocate_tensors()
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if tuple(source["shape"]) != (1, INPUTS):
        raise ValueError(f"the model takes {tuple(source['shape'])}, not (1, {INPUTS}): it is no keyword model")
    outputs = []
    for row in quantize(inputs.reshape(-1, INPUTS), source):
        interpreter.set_tensor(source["index"], row[np.newaxis])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(sink["index"])[0])
    return np.stack(outputs).reshape(*inputs.shape[:-1], -1)


def interpreter_logits(interpreter: Any, inputs: Floats) -> NDArray[np.float32]:
    """`interpreter_outputs` as real numbers, float32 [..., classes]."""
    outputs = interpreter_outputs(interpreter, inputs)
    return dequantize(outputs, interpreter.get_output_details()[0])


def file_logits(path: str | Path, raw: Floats, normalization: str | Path | None = None) -> NDArray[np.float32]:
    """Logits [..., classes] of a model file for raw features [..., INPUTS].

    Args:
        path: a .keras file, or a .tflite file, which runs in `subbyte.kernels.Interpreter`.
        raw: of `Split.views` or `Split.inputs`.
        normalization: default: the file beside the model, of the same name with .npz.

    Raises:
        ValueError: a file is missing, or `path` ends in something else.
    """
    path = Path(path)
    if path.suffix not in (".keras", ".tflite"):
        raise ValueError(f"{path} is no model file: it must end in .keras or .tflite")
    if not path.is_file():
        raise ValueError(f"model file {path} not found")
    inputs = Normalization.load(normalization or path.with_suffix(".npz"))(raw)
    if path.suffix == ".tflite":
        from subbyte import kernels

        return interpreter_logits(kernels.Interpreter(model_path=str(path), num_threads=1), inputs)
    import tensorflow as tf

    from subbyte import keras_layers  # noqa: F401  registers the layers

    return keras_logits(tf.keras.models.load_model(path, compile=False), inputs)


def report_table(rows: Sequence[tuple[str, Report]], title: str) -> Table:
    """A table for people: one line a model, with 95 % intervals over speakers."""
    from rich.table import Table

    from subbyte.console import add_columns

    table = Table(title=title)
    misses = (f"misses at {100 * rate:g} % false alarms" for rate in FALSE_ALARMS)
    add_columns(table, "model", "keyword accuracy", *misses)
    for name, found in rows:
        table.add_row(name, str(found.accuracy), *map(str, found.misses))
    return table
