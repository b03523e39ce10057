"""From a user's arrays to what a model takes, and from what it gives to rows that can be compared: one way for all.

Arrays are in the units of the model that a conversion started from. Its floating-point inputs take numbers as they are.
A quantized input takes real numbers, which its own scale and zero point make codes; an array of exactly its integer
type holds codes already. Other integers and bools are taken as they are, where no value changes.

An array has as many dimensions as its input, and the first counts samples: they are fed in order, as many at a time as
the input holds, the last group filled up with its last sample. Or it has one dimension more: one whole input each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from subbyte.kernels import Interpreter

from .errors import ConversionError
from .flatbuffer import TensorType
from .graph import Graph, readable

_DTYPES = {
    number: np.dtype(name.lower())
    for name in ("FLOAT64", "FLOAT32", "FLOAT16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16",
                 "UINT8", "BOOL")
    if (number := getattr(TensorType, name, None)) is not None
}  # fmt: skip


@dataclass(frozen=True)
class End:
    """An input or an output of a model, or a tensor that is looked at as if it were one.

    Attributes:
        name: in the signature, else the tensor's own.
        shape: of what one run takes or gives; a free batch is 1.
        dtype: of the interpreter's array.
        quantization: (scale, zero point) of codes; None where the numbers stand for themselves.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    quantization: tuple[float, int] | None = None

    @classmethod
    def of(cls, tensor: Any, name: str) -> End:
        """The end that a tensor of the file is. Raises ConversionError where it holds strings or handles."""
        dtype = _DTYPES.get(tensor.type)
        if dtype is None:
            raise ConversionError(f"--verify feeds and compares numbers, and {name!r} holds none")
        shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
        parameters = tensor.quantization
        scales = None if parameters is None else parameters.scale
        if dtype.kind not in "iu" or scales is None or len(scales) != 1 or not scales[0]:
            return cls(name, shape, dtype)
        return cls(name, shape, dtype, (float(scales[0]), int(parameters.zeroPoint[0])))

    def check(self, given: np.ndarray) -> None:
        """Raises ConversionError for an array of which the input can take no value for what it says."""
        if given.dtype.kind not in "fiub":
            raise ConversionError(f"input {self.name!r} holds {given.dtype}, not numbers")
        if not np.all(np.isfinite(given)):
            raise ConversionError(f"input {self.name!r} holds NaN or infinity")
        if self.quantization is None and self.dtype.kind in "iub":
            with np.errstate(invalid="ignore"):
                changed = given.astype(self.dtype) != given
            if np.any(changed):
                raise ConversionError(f"input {self.name!r} takes {self.dtype}, which {given[changed][0]} is not")

    def numbers(self, given: np.ndarray) -> np.ndarray:
        """A user's array of the input: float64, or of integers that stand for themselves their own type."""
        if self.quantization is None:
            return given.astype(np.float64 if self.dtype.kind == "f" else self.dtype)
        return self.real(given) if given.dtype == self.dtype else given.astype(np.float64)

    def real(self, array: np.ndarray) -> np.ndarray:
        """The numbers that an array of the interpreter stands for."""
        if self.quantization is None:
            return array
        scale, zero_point = self.quantization
        return scale * (array.astype(np.float64) - zero_point)

    def array(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers as the interpreter has them, rounded to codes where it has codes."""
        if self.quantization is None:
            return numbers.astype(self.dtype)
        scale, zero_point = self.quantization
        limits = np.iinfo(self.dtype)
        return np.clip(np.rint(numbers / scale) + zero_point, limits.min, limits.max).astype(self.dtype)


@dataclass(frozen=True)
class Signature:
    """What can be run in a file.

    Attributes:
        key: its name; None for the main subgraph of a file that has no signature for it.
        subgraph: by index; 0 is the main one.
        inputs: in the subgraph's order.
        outputs: in the signature's order.
        places: of the outputs among those of the subgraph.
    """

    key: str | None
    subgraph: int
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    places: tuple[int, ...]


def signatures(graph: Graph) -> list[Signature]:
    """All of a file, that of the main subgraph first. Raises ConversionError, naming what cannot be fed by its name."""
    found = [
        _signature(graph, definition.subgraphIndex, readable(definition.signatureKey or b""), definition)
        for definition in graph.model.signatureDefs or []
    ]
    if all(signature.subgraph for signature in found):
        found.append(_signature(graph, 0, None, None))
    return sorted(found, key=lambda signature: signature.subgraph)


def _signature(graph: Graph, index: int, key: str | None, definition: Any) -> Signature:
    subgraph = graph.model.subgraphs[index]
    sides: list[list[tuple[str, int]]] = []
    for side in ("inputs", "outputs"):
        if definition is None:
            tensors = [int(tensor) for tensor in getattr(subgraph, side)]
            sides.append([(readable(subgraph.tensors[tensor].name or b""), tensor) for tensor in tensors])
        else:
            sides.append([(readable(entry.name), int(entry.tensorIndex)) for entry in getattr(definition, side) or []])
    inputs, outputs = sides
    names = [name for name, _ in inputs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConversionError(f"--verify feeds inputs by name, and two are called {twice!r}: name them apart")
    by_tensor = {tensor: name for name, tensor in inputs}
    unnamed = [int(tensor) for tensor in subgraph.inputs if int(tensor) not in by_tensor]
    if unnamed or len(by_tensor) != len(inputs):
        raise ConversionError(f"--verify feeds inputs by name, and signature {key!r} does not name each of them once")
    order = [int(tensor) for tensor in subgraph.outputs]
    return Signature(
        key,
        index,
        tuple(End.of(subgraph.tensors[int(tensor)], by_tensor[int(tensor)]) for tensor in subgraph.inputs),
        tuple(End.of(subgraph.tensors[tensor], name) for name, tensor in outputs),
        tuple(order.index(tensor) for _, tensor in outputs),
    )


@dataclass(frozen=True)
class Feed:
    """A user's arrays, cut into runs.

    Attributes:
        arrays: by input name.
        ends: the inputs of the model whose units they are in.
        runs: how often a model is run on them.
        samples: how many they hold.
        group: how many of them a run takes.
        grids: scales, by input name, to whose multiples numbers are rounded before they are fed.
    """

    arrays: Mapping[str, np.ndarray]
    ends: Sequence[End]
    runs: int
    samples: int
    group: int
    grids: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, ends: Sequence[End], arrays: Mapping[str, np.ndarray], grids: Mapping[str, float]) -> Feed:
        """Raises ConversionError for arrays that do not fit the inputs, naming one."""
        sizes = set()
        for end in ends:
            if end.name not in arrays:
                raise ConversionError(f"input {end.name!r} is missing: there is {', '.join(arrays) or 'nothing'}")
            end.check(arrays[end.name])
            sizes.add((_group(end, arrays[end.name]), len(arrays[end.name])))
        group, samples = max(sizes, default=(1, 1))
        runs = {-(-count // size) for size, count in sizes} or {1}
        if len(runs) != 1 or runs == {0} or sum(size == group for size, _ in sizes) > 1:
            raise ConversionError("every input needs the same number of samples, at least one")
        return cls(arrays, ends, runs.pop(), samples, group, grids)

    def __getitem__(self, run: int) -> dict[str, np.ndarray]:
        """The numbers of one run, by input name, in the inputs' shapes."""
        return {end.name: self._part(end, run) for end in self.ends}

    def _part(self, end: End, run: int) -> np.ndarray:
        given = self.arrays[end.name]
        group = _group(end, given)
        part = given[run * group : (run + 1) * group]
        part = np.concatenate([part, *[part[-1:]] * (group - len(part))]).reshape(end.shape)
        numbers, grid = end.numbers(part), self.grids.get(end.name)
        return numbers if grid is None else np.rint(numbers / grid) * grid

    def joined(self) -> dict[str, np.ndarray]:
        """All numbers by input name, [samples, ...] each."""
        parts = [self[run] for run in range(self.runs)]
        return {end.name: self.rows([end.array(part[end.name]) for part in parts]) for end in self.ends}

    def rows(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """What the runs gave for one output: [samples, ...] where it has the inputs' batch, else [runs, ...].

        One row of all numbers where the shape changes from run to run.
        """
        if len({output.shape for output in outputs}) > 1:
            return np.concatenate([output.ravel() for output in outputs])[None]
        if outputs[0].ndim and outputs[0].shape[0] == self.group:
            return np.concatenate(outputs)[: self.samples]
        return np.stack(outputs)


def _group(end: End, given: np.ndarray) -> int:
    """How many samples of an array one run takes. Raises ConversionError where its shape does not fit."""
    if given.ndim == len(end.shape) + 1 and given.shape[1:] == end.shape:
        return 1
    if given.ndim == len(end.shape) > 0 and given.shape[1:] == end.shape[1:] and end.shape[0] > 0:
        return end.shape[0]
    batched = len(end.shape) > 1 or end.shape == (1,)
    wanted = ", ".join(map(str, ("samples", *(end.shape[1:] if batched else end.shape))))
    raise ConversionError(f"input {end.name!r} is {list(given.shape)}, the model takes [{wanted}]")


class Model:
    """A file in the interpreter, which keeps its state from one run to the next."""

    def __init__(self, tflite: bytes, name: str, make: Any = Interpreter) -> None:
        """Raises ConversionError, with `name`, where the interpreter refuses it."""
        self._name = name
        try:
            self._interpreter = make(model_content=tflite)
            self._interpreter.allocate_tensors()
            self._inputs = [detail["index"] for detail in self._interpreter.get_input_details()]
            self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        except (RuntimeError, ValueError) as error:
            raise self._refusal(error) from error

    def run(self, signature: Signature, numbers: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One run on numbers in the order of the signature's inputs.

        Returns:
            The interpreter's arrays: of the main subgraph all of the file's outputs, of another the signature's.
        """
        arrays = [end.array(values) for end, values in zip(signature.inputs, numbers, strict=True)]
        try:
            if signature.subgraph:
                runner = self._interpreter.get_signature_runner(signature.key)
                outputs = runner(**{end.name: array for end, array in zip(signature.inputs, arrays, strict=True)})
                return [outputs[end.name] for end in signature.outputs]
            for index, array in zip(self._inputs, arrays, strict=True):
                self._interpreter.set_tensor(index, array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]
        except (RuntimeError, ValueError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> ConversionError:
        return ConversionError(f"--verify cannot run {self._name}: {' '.join(str(error).split())}")
