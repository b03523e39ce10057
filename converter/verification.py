"""Runs a model three ways over real inputs and counts the codes that differ: Keras, stock int8 ops, packed ops."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from subbyte.kernels import Interpreter

from .bounds import MOVES, Bound, keras_bounds
from .conversion import Conversion
from .errors import ConversionError
from .flatbuffer import CODE_RANGES, TensorType
from .graph import Graph


@dataclass(frozen=True)
class Comparison:
    """One tensor in two models.

    Attributes:
        layer: the layer, or the model's output.
        against: what the packed model is compared with.
        codes: how many were compared.
        differing: how many are not equal.
        largest: largest difference, in codes.
        bound: what may differ; None where nothing is promised.
        same_top: of a requantized model's output against the original's: share of the samples whose largest code, the
            class, is the same; else None.
    """

    layer: str
    against: str
    codes: int
    differing: int
    largest: int
    bound: Bound | None
    same_top: float | None = None

    @property
    def passed(self) -> bool:
        bound = self.bound
        return bound is None or (self.differing <= bound.share * self.codes and self.largest <= bound.codes)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """What an .npz holds. Raises ConversionError for what is none."""
    try:
        archive = np.load(path)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one bare array")
        with archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConversionError(f"cannot read {path}: give an .npz written by numpy.savez ({error})") from error


def load_inputs(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Arrays by input name from an .npz. Raises ConversionError, naming what is missing."""
    arrays = read_arrays(path)
    if len(names) == 1 and len(arrays) == 1:
        return {names[0]: next(iter(arrays.values()))}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ConversionError(f"{path} has no array {missing[0]!r}: it holds {', '.join(arrays) or 'nothing'}")
    return {name: arrays[name] for name in names}


def verify(
    conversion: Conversion, inputs: dict[str, np.ndarray], progress: Callable[[float], None] = lambda share: None
) -> list[Comparison]:
    """Compares the packed model with the int8 target, with the Keras model or SavedModel that it was made from, if it
    was, and after requantization with the original file, of which nothing is promised.

    Args:
        conversion: a model in integer ops.
        inputs: by name, [samples, ...] each, real values; what a model takes as int16 is rounded to codes first.
        progress: called with the share that is done.

    Raises:
        ConversionError: inputs that do not fit the model.
    """
    check_feedable(conversion.graph)
    samples = check_inputs(conversion.graph, inputs)
    inputs = _on_codes(conversion.graph, inputs)
    points = _points(conversion)
    tensors = [point.tensor for point in points]
    runs = {target: Exposed(conversion.graph, conversion.tflite(target, tensors)) for target in ("packed", "int8")}
    requantized: dict[str, int] = {}
    if conversion.bits is not None:
        requantized = _quantized_outputs(conversion.graph)
        # 8 bits lose nothing, and give a bias to convolutions that have none, which the stock interpreter wants.
        original = Conversion.start(conversion.source.tflite, conversion.io, bits=8)
        check_feedable(original.graph)
        if not requantized:
            name = next(iter(conversion.graph.named("outputs")), "none")
            raise ConversionError(f"--verify cannot compare output {name!r} with the original's: nothing quantizes it")
        outputs = _quantized_outputs(original.graph)
        absent = [name for name in requantized if name not in outputs]
        if absent:
            raise ConversionError(f"--verify cannot compare output {absent[0]!r}: nothing quantizes it in the original")
        exposed = original.tflite("int8", [outputs[name] for name in requantized])
        runs["original"] = Exposed(original.graph, exposed)
    codes: dict[str, list[list[np.ndarray]]] = {target: [] for target in runs}
    for sample in range(samples):
        row = {name: values[sample : sample + 1] for name, values in inputs.items()}
        for target, run in runs.items():
            codes[target].append(run(row))
        progress((sample + 1) / samples)
    joined = {target: [np.concatenate(column) for column in zip(*codes[target], strict=True)] for target in runs}
    packed, int8 = joined["packed"], joined["int8"]
    comparisons = [
        _compare(point.name, "int8 target", ours, stock, Bound())
        for point, ours, stock in zip(points, packed, int8, strict=True)
    ]
    if conversion.source.reference is not None:
        keras = conversion.source.reference(inputs)
        for point, ours in zip(points, packed, strict=True):
            if point.in_keras in keras:
                expected = point.to_codes(keras[point.in_keras])
                comparisons.append(_compare(point.name, "Keras", ours, expected.reshape(ours.shape), point.bound))
    for name, expected in zip(requantized, joined.get("original", ()), strict=True):
        comparisons.append(_against_original(name, packed[tensors.index(requantized[name])], expected))
    return comparisons


@dataclass(frozen=True)
class _Point:
    """A quantized tensor to compare."""

    tensor: int
    name: str
    in_keras: str | None
    scale: float
    zero_point: int
    code_range: tuple[int, int]
    bound: Bound | None

    def to_codes(self, values: np.ndarray) -> np.ndarray:
        codes = np.rint(values.astype(np.float64) / self.scale) + self.zero_point
        return np.clip(codes, *self.code_range).astype(np.int64)


def _points(conversion: Conversion) -> list[_Point]:
    """The outputs of the linear ops in order, then those of the model that are none of them."""
    graph = conversion.graph
    bounds = keras_bounds(graph)
    outputs = {tensor: name for name, tensor in _quantized_outputs(graph).items()}
    points = []
    for op in conversion.linear_ops:
        tensor = op.outputs[0]
        in_keras = op.tap or outputs.get(tensor)
        points.append(_Point(tensor, op.layer, in_keras, *_quantization(graph, tensor), bounds[tensor]))
        outputs.pop(tensor, None)
    for quantized, name in outputs.items():
        points.append(_Point(quantized, name, name, *_quantization(graph, quantized), bounds[quantized]))
    return points


def _quantized_outputs(graph: Graph) -> dict[str, int]:
    """The quantized tensors that are or make the model's outputs, by name; without outputs that nothing quantizes."""
    found = {name: _quantized(graph, tensor) for name, tensor in graph.named("outputs").items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _quantized(graph: Graph, tensor: int) -> int | None:
    """The quantized tensor that is or makes an output, if one does."""
    if graph.quantization(tensor) is not None:
        return tensor
    producer = graph.producer(tensor)
    if producer is not None and graph.kind(producer) == "DEQUANTIZE":
        return int(producer.inputs[0])
    return None


def _quantization(graph: Graph, tensor: int) -> tuple[float, int, tuple[int, int]]:
    """(scale, zero point, smallest and largest code)."""
    quantization = graph.quantization(tensor)
    assert quantization is not None, "a compared tensor is quantized"
    return *quantization, CODE_RANGES[graph.tensor(tensor).type]


#: Types that `Exposed` feeds, and the ops that keep something from one run to the next.
_FED = (TensorType.FLOAT32, TensorType.FLOAT64, TensorType.INT8, TensorType.INT16)
_STATE = {
    "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE", "HASHTABLE", "SVDF", "LSTM", "RNN",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
}  # fmt: skip


def check_feedable(graph: Graph) -> None:
    """Raises ConversionError, naming the input or op, for a model that cannot be compared one sample at a time.

    What is not tested must not be called ok.
    """
    names = [graph.name(tensor) for tensor in graph.inputs]
    if len(graph.named("inputs")) != len(names):
        raise ConversionError(f"--verify feeds inputs by name, and two are called {names[0]!r}: name them apart")
    for name, tensor in graph.named("inputs").items():
        shape, kind = graph.shape(tensor), graph.tensor(tensor).type
        if not shape or shape[0] != 1:
            raise ConversionError(f"--verify feeds one sample at a time, and input {name!r} is {list(shape)}: batch 1")
        if kind not in _FED:
            raise ConversionError(f"--verify feeds float, int8 and int16, and input {name!r} is of type {kind}")
    for name, tensor in graph.named("outputs").items():
        shape = graph.shape(tensor)
        if not shape or shape[0] != 1:
            raise ConversionError(f"--verify wants a batch of 1, and output {name!r} is {list(shape)}")
    state = [op for op in graph.operators if graph.kind(op) in _STATE]
    if state:
        raise ConversionError(f"--verify cannot compare a model with state yet ({graph.kind(state[0])})")


def check_inputs(graph: Graph, inputs: dict[str, np.ndarray]) -> int:
    counts = set()
    for name, tensor in graph.named("inputs").items():
        shape = graph.shape(tensor)[1:]
        if name not in inputs:
            raise ConversionError(f"input {name!r} is missing: there is {', '.join(inputs) or 'nothing'}")
        if inputs[name].dtype.kind not in "fiub":
            raise ConversionError(f"input {name!r} holds {inputs[name].dtype}, not numbers")
        if inputs[name].ndim == 0 or inputs[name].shape[1:] != shape:
            raise ConversionError(
                f"input {name!r} is {list(inputs[name].shape)}, the model takes [samples, {', '.join(map(str, shape))}]"
            )
        if not np.all(np.isfinite(inputs[name])):
            raise ConversionError(f"input {name!r} holds NaN or infinity")
        counts.add(len(inputs[name]))
    if len(counts) != 1 or counts == {0}:
        raise ConversionError("every input needs the same number of samples, at least one")
    return counts.pop()


def _on_codes(graph: Graph, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs, those that become int16 as the nearest numbers that codes stand for.

    Stock QUANTIZE ops break ties between int16 codes in two ways, by where in the tensor they are. float32 features lie
    on ties often enough to hide what is to be compared.
    """
    rounded = dict(inputs)
    for name, tensor in graph.named("inputs").items():
        scales = set(_int16_scales(graph, tensor))
        if scales:
            rounded[name] = np.rint(inputs[name] / min(scales)) * min(scales)
    return rounded


def _int16_scales(graph: Graph, tensor: int) -> Iterator[float]:
    """Scales of the int16 tensors that `tensor` is, or becomes without a change but QUANTIZE's."""
    quantization = graph.quantization(tensor)
    if quantization is not None:
        if graph.tensor(tensor).type == TensorType.INT16:
            yield quantization[0]
        return
    for op in graph.consumers(tensor):
        if graph.kind(op) == "QUANTIZE" or graph.kind(op) in MOVES:
            for output in op.outputs:
                yield from _int16_scales(graph, int(output))


class Exposed:
    """A model in the stock interpreter; `graph` has the names of its inputs."""

    def __init__(self, graph: Graph, model: bytes) -> None:
        self._interpreter = Interpreter(model_content=model)
        self._interpreter.allocate_tensors()
        names = {tensor: name for name, tensor in graph.named("inputs").items()}
        details = self._interpreter.get_input_details()
        self._inputs = {names[tensor]: detail for tensor, detail in zip(graph.inputs, details, strict=True)}
        self._points = [detail["index"] for detail in self._interpreter.get_output_details()]

    def __call__(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        for name, detail in self._inputs.items():
            values = inputs[name]
            if detail["dtype"] in (np.int8, np.int16):
                scale, zero_point = detail["quantization"]
                ends = np.iinfo(detail["dtype"])
                values = np.clip(np.rint(values / scale) + zero_point, ends.min, ends.max)
            self._interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._points]


def _against_original(output: str, codes: np.ndarray, expected: np.ndarray) -> Comparison:
    top, expected_top = (values.reshape(len(values), -1).argmax(axis=1) for values in (codes, expected))
    return replace(_compare(output, "original", codes, expected, None), same_top=float(np.mean(top == expected_top)))


def _compare(layer: str, against: str, codes: np.ndarray, expected: np.ndarray, bound: Bound | None) -> Comparison:
    difference = np.abs(codes.astype(np.int64) - expected.astype(np.int64))
    return Comparison(
        layer, against, difference.size, int(np.count_nonzero(difference)), int(difference.max(initial=0)), bound
    )
