"""Runs what a conversion writes beside what it was made from, over real inputs, and counts what differs.

Every model has one interpreter, and the samples are fed in order: what keeps a state is run over one sequence.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter as StockInterpreter

from subbyte.schemas.samples import samples_by_input

from .bounds import MOVES, Bound, keras_bounds
from .comparison import Comparison, compare, compare_outputs
from .conversion import Conversion
from .errors import ConversionError
from .feeding import End, Feed, Model, Signature, signatures
from .flatbuffer import TensorType
from .graph import Graph
from .targets import TARGETS, find_target

#: So many samples are read of what gives them piece by piece and need not end.
MOST_SAMPLES = 10_000

#: Floats that Keras gives at once: 256 MB.
_MOST_VALUES = 2**26

#: Ops that give something else each time.
_RANDOM = ("RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL", "STABLEHLO_RNG_BIT_GENERATOR")


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


def load_inputs(path: Path, conversion: Conversion) -> dict[str, np.ndarray]:
    """Arrays by input name from an .npz. Raises ConversionError, naming what is missing."""
    arrays, names = read_arrays(path), list(_ranks(_source_signatures(conversion)))
    if len(names) == 1 and len(arrays) == 1:
        return {names[0]: next(iter(arrays.values()))}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ConversionError(f"{path} has no array {missing[0]!r}: it holds {', '.join(arrays) or 'nothing'}")
    return {name: arrays[name] for name in names}


def feed(conversion: Conversion, inputs: Any) -> Feed:
    """Inputs of a model's main signature; see `verify`."""
    taken = _source_signatures(conversion)
    return _feed(conversion, taken[0], signatures(conversion.graph)[0], _arrays(taken, inputs))


def verify(
    conversion: Conversion,
    inputs: Any,
    progress: Callable[[float], None] = lambda share: None,
    target: str = "packed",
) -> list[Comparison]:
    """Compares what is written with what it was made from.

    Layer by layer and in all outputs, the model for `target` with that for the int8 target (the int8 target itself
    with the packed one), and with the Keras model or SavedModel, if it comes from one. Every output of every signature
    of the written file with the original `.tflite`, if it comes from one; nothing is promised of that after
    requantization.

    Args:
        conversion: a model in integer ops.
        inputs: by the names that the inputs have in the model that was converted, in any form that
            `subbyte.schemas.samples.samples_by_input` takes: a dictionary of arrays, one array, a `tf.data.Dataset`, a
            generator. `feeding` has the rule for shapes and types.
        progress: called with the share that is done.
        target: which file is written.

    Raises:
        ConversionError: inputs that do not fit the model, or what cannot be fed or compared, by its name.
    """
    find_target(target)
    taken, given = _source_signatures(conversion), signatures(conversion.graph)
    arrays = _arrays(taken, inputs)
    pairs = [
        _Pair(theirs, ours, _feed(conversion, theirs, ours, arrays)) for theirs, ours in zip(taken, given, strict=True)
    ]
    other = "packed" if target == "int8" else "int8"
    is_tflite = conversion.source.reference is None
    done = _Counter(2 * sum(pair.feed.runs for pair in [pairs[0], *(pairs if is_tflite else [])]), progress)
    comparisons = _compare_layers(conversion, pairs[0], (target, other), done)
    return comparisons + (_compare_with_original(conversion, pairs, target, done) if is_tflite else [])


def untested(conversion: Conversion) -> list[str]:
    """A line for what `verify` does not compare."""
    state = _state(conversion.graph)
    if conversion.source.reference is None or state is None:
        return []
    return [f"--verify does not compare this model with Keras: it keeps a state from one input to the next ({state})"]


def _state(graph: Graph) -> str | None:
    """The first op that keeps something from one run to the next."""
    for op in graph.operators:
        variable = any(tensor >= 0 and graph.tensor(int(tensor)).isVariable for tensor in op.inputs)
        if variable or graph.kind(op) in ("READ_VARIABLE", "ASSIGN_VARIABLE"):
            return graph.kind(op)
    return None


@dataclass(frozen=True)
class _Pair:
    """A signature in the model that was converted and in what it became, and what both are fed."""

    theirs: Signature
    ours: Signature
    feed: Feed


class _Counter:
    """Tells which share of the runs is done."""

    def __init__(self, total: int, progress: Callable[[float], None]) -> None:
        self._total, self._progress, self._count = total, progress, 0

    def __call__(self) -> None:
        self._count += 1
        self._progress(self._count / self._total)


def _source_signatures(conversion: Conversion) -> list[Signature]:
    """The signatures of the model that was converted. Raises ConversionError where it cannot be compared."""
    graph = Graph.read(conversion.source.tflite, conversion.source.name)
    for subgraph in graph.model.subgraphs:
        graph.main = subgraph
        drawn = next((graph.kind(op) for op in graph.operators if graph.kind(op) in _RANDOM), None)
        if drawn is not None:
            raise ConversionError(f"--verify cannot compare a model that draws random numbers ({drawn})")
    return signatures(graph)


def _ranks(taken: Sequence[Signature]) -> dict[str, int]:
    """Numbers of dimensions, samples included, by the names of all inputs."""
    return {end.name: max(1, len(end.shape)) for signature in taken for end in signature.inputs}


def _arrays(taken: Sequence[Signature], inputs: Any) -> dict[str, np.ndarray]:
    try:
        return samples_by_input(inputs, _ranks(taken), MOST_SAMPLES, what="what --verify reads")
    except ConversionError:
        raise
    except ValueError as error:
        raise ConversionError(str(error)) from error


def _feed(conversion: Conversion, theirs: Signature, ours: Signature, arrays: dict[str, np.ndarray]) -> Feed:
    """Real numbers for one signature, on a grid where models would round them in different ways.

    Stock QUANTIZE ops break ties between int16 codes in two ways, by where in the tensor they are. float32 features lie
    on ties often enough to hide what is to be compared. And where one model takes codes and the other real numbers,
    the one is given rounded codes, and the other rounds by itself.
    """
    grids = {}
    for their_end, our_end in zip(theirs.inputs, ours.inputs, strict=True):
        scales = [end.quantization[0] for end in (their_end, our_end) if end.quantization is not None]
        if scales and their_end.dtype != our_end.dtype and conversion.source.reference is None:
            grids[their_end.name] = scales[0]
    if not ours.subgraph:
        for end, tensor in zip(theirs.inputs, conversion.graph.inputs, strict=True):
            wide = set(_int16_scales(conversion.graph, tensor))
            if wide:
                grids[end.name] = min(wide)
    return Feed.of(theirs.inputs, arrays, grids)


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


def _run(model: Model, signature: Signature, pair: _Pair, done: _Counter) -> list[np.ndarray]:
    """Rows of each output."""
    runs = []
    for run in range(pair.feed.runs):
        runs.append(model.run(signature, list(pair.feed[run].values())))
        done()
    return [pair.feed.rows(column) for column in zip(*runs, strict=True)]


def _compare_with_original(
    conversion: Conversion, pairs: Sequence[_Pair], target: str, done: _Counter
) -> list[Comparison]:
    """Every output of every signature, of the file that is written against the file that was given."""
    original = Model(conversion.source.tflite, conversion.source.name, StockInterpreter)
    written = Model(conversion.tflite(target), f"the {target} target")
    comparisons = []
    for pair in pairs:
        rows = (_run(written, pair.ours, pair, done), _run(original, pair.theirs, pair, done))
        ours, theirs = (
            [found[place] for place in signature.places]
            for signature, found in zip((pair.ours, pair.theirs), rows, strict=True)
        )
        requantized = conversion.bits is not None
        bound = None if requantized else TARGETS[target].bound
        for our_end, our_rows, their_end, their_rows in zip(
            pair.ours.outputs, ours, pair.theirs.outputs, theirs, strict=True
        ):
            comparisons.append(compare_outputs((our_end, our_rows), (their_end, their_rows), bound, requantized))
    return comparisons


@dataclass(frozen=True)
class _Point:
    """A tensor to compare: its name for people, and in Keras, and what may differ from there."""

    tensor: int
    name: str
    in_keras: str | None
    end: End
    bound: Bound | None


def _points(conversion: Conversion) -> list[_Point]:
    """The outputs of the ops in integers in order, then those of the model that are none of them."""
    graph = conversion.graph
    bounds = keras_bounds(graph)
    outputs = {_behind_dequantize(graph, tensor): name for name, tensor in graph.named("outputs").items()}
    points = []
    for op in conversion.integer_ops:
        for place, tensor in enumerate(op.outputs):
            name = op.layer if len(op.outputs) == 1 else f"{op.layer}, output {place}"
            in_keras = (op.tap if place == 0 else None) or outputs.get(tensor)
            points.append(_Point(tensor, name, in_keras, End.of(graph.tensor(tensor), name), bounds[tensor]))
            outputs.pop(tensor, None)
    for tensor, name in outputs.items():
        end = End.of(graph.tensor(tensor), name)
        # Ops in float round in their own ways.
        bound = bounds.get(tensor) if end.quantization is not None else None
        points.append(_Point(tensor, name, name, end, bound))
    return points


def _behind_dequantize(graph: Graph, tensor: int) -> int:
    """The tensor with the codes of an output, where it is made of some, else itself."""
    producer = graph.producer(tensor)
    if producer is not None and graph.kind(producer) == "DEQUANTIZE" and graph.quantization(int(producer.inputs[0])):
        return int(producer.inputs[0])
    return tensor


def _compare_layers(conversion: Conversion, pair: _Pair, targets: tuple[str, str], done: _Counter) -> list[Comparison]:
    """The main signature in two targets, and in Keras."""
    points = _points(conversion)
    ours, others = (
        _run(
            Model(conversion.tflite(name, [point.tensor for point in points]), f"the {name} target"),
            pair.ours,
            pair,
            done,
        )
        for name in targets
    )
    bound = TARGETS[targets[0]].bound
    comparisons = [
        compare(point.name, f"{targets[1]} target", rows, other, bound)
        for point, rows, other in zip(points, ours, others, strict=True)
    ]
    if conversion.source.reference is None or untested(conversion):
        return comparisons
    del others  # every tensor of the model, for all samples
    in_keras = _in_keras(conversion, points, pair.feed.joined())
    return comparisons + [
        compare(point.name, "Keras", rows, in_keras[place], bound and point.bound)
        for place, (point, rows) in enumerate(zip(points, ours, strict=True))
        if place in in_keras
    ]


def _in_keras(conversion: Conversion, points: list[_Point], inputs: dict[str, np.ndarray]) -> dict[int, np.ndarray]:
    """What Keras gives at the points that it has, in codes, by their places.

    Floats of every tensor of a large model take far more than the model: few samples are computed at once.
    """
    assert conversion.source.reference is not None
    values = sum(math.prod(conversion.graph.shape(point.tensor)) for point in points)
    size, samples = max(1, _MOST_VALUES // max(1, values)), len(next(iter(inputs.values())))
    found: dict[int, list[np.ndarray]] = {}
    for start in range(0, samples, size):
        outputs = conversion.source.reference({name: x[start : start + size] for name, x in inputs.items()})
        for place, point in enumerate(points):
            if point.in_keras in outputs:
                found.setdefault(place, []).append(point.end.array(outputs[point.in_keras]))
    return {place: np.concatenate(parts) if len(parts) > 1 else parts[0] for place, parts in found.items()}
