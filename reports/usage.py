"""How a converted model uses its codes: those of the weights, and those of the activations on real inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subbyte.converter.conversion import Conversion
from subbyte.converter.errors import ConversionError
from subbyte.converter.feeding import Model, signatures
from subbyte.converter.flatbuffer import CODE_RANGES
from subbyte.converter.graph import Graph
from subbyte.converter.integer_ops import LinearOp
from subbyte.converter.verification import feed

#: Inputs that the activations are measured on; more change no figure that a page shows.
SAMPLES = 1000

_MOST_BINS = 60
_MOVES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE")  # the codes behind are those before


@dataclass(frozen=True)
class WeightUsage:
    """The weights of one layer.

    Attributes:
        layer: its name.
        shape: of the kernel, as in Keras.
        bits: of a stored code.
        values: [n] the integers that codes can stand for, rising.
        shares: [n] of the weights that have each.
        zeros: share of the weights that are 0.
        sqnr_db: against the float weights in dB; None where nobody knows those; infinite where nothing was rounded.
        clipped: share of the float weights more than half a step beyond the first or the last value; None likewise.
        density: of the float weights in units of the integers, heights [bins] and edges [bins + 1]; None likewise.
    """

    layer: str
    shape: tuple[int, ...]
    bits: int
    values: NDArray[np.int64]
    shares: NDArray[np.float64]
    zeros: float
    sqnr_db: float | None
    clipped: float | None
    density: tuple[NDArray[np.float64], NDArray[np.float64]] | None

    @property
    def used(self) -> int:
        """How many of the values some weight has."""
        return int(np.count_nonzero(self.shares))

    @property
    def entropy(self) -> float:
        """Bits that a weight needs at least, were each code as long as its share asks."""
        shares = self.shares[self.shares > 0]
        return max(0.0, -float(np.sum(shares * np.log2(shares))))


def weight_usage(op: LinearOp) -> WeightUsage:
    """What the weights of `op` do with their codes."""
    grid = op.grid
    levels = grid.offset + grid.step * np.arange(1 << grid.bits) if grid.codebook is None else np.unique(grid.codebook)
    values, counts = levels.astype(np.int64), np.zeros(len(levels))
    present, number = np.unique(op.weights, return_counts=True)
    counts[np.searchsorted(values, present)] = number
    clipped, density = None, None
    if op.real_weights is not None:
        step = float(np.diff(values).min()) if len(values) > 1 else 1.0
        low, high = values[0] - step / 2, values[-1] + step / 2
        real = op.real_weights.ravel()
        clipped = float(np.mean((real < low) | (real > high)))
        bins = min(_MOST_BINS, 10 + int(3 * np.cbrt(real.size)))  # few weights make many bins look like teeth
        heights, edges = np.histogram(real, bins, (low - 1.5 * step, high + 1.5 * step))
        density = heights / (real.size * np.diff(edges)), edges
    return WeightUsage(
        layer=op.layer,
        shape=op.kernel_shape,
        bits=grid.bits,
        values=values,
        shares=counts / counts.sum(),
        zeros=float(np.mean(op.weights == 0)),
        sqnr_db=op.sqnr_db(),
        clipped=clipped,
        density=density,
    )


@dataclass(frozen=True)
class Activation:
    """One quantized tensor.

    Attributes:
        name: its layer's, or its own.
        bits: 8 or 16.
        scale, zero_point: real = scale * (code - zero point).
        low, high: the codes it can have; what bounds its layer's output bounds them.
        counts: [high - low + 1] how often each was there, on real inputs; None without inputs.
    """

    name: str
    bits: int
    scale: float
    zero_point: int
    low: int
    high: int
    counts: NDArray[np.int64] | None = None

    def real(self, code: float) -> float:
        """The number that a code stands for."""
        return self.scale * (code - self.zero_point)

    @property
    def codes(self) -> NDArray[np.int64]:
        return np.arange(self.low, self.high + 1)

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of each code among all that were there. Raises TypeError without inputs."""
        if self.counts is None:
            raise TypeError(f"{self.name} was not measured: give inputs")
        shares: NDArray[np.float64] = self.counts / max(1, self.counts.sum())
        return shares

    @property
    def used(self) -> tuple[int, int]:
        """The smallest and the largest code that was there. Raises TypeError without inputs."""
        codes = self.codes[self.shares > 0]
        return int(codes[0]), int(codes[-1])


def activations(conversion: Conversion, inputs: dict[str, np.ndarray] | None) -> list[Activation]:
    """The quantized tensors in the order of the graph; those that only change shape are left out.

    Args:
        conversion: a model in integer ops.
        inputs: by name, [samples, ...] each; the packed model runs on the first `SAMPLES` of them.
    """
    tensors = _tensors(conversion.graph)
    if inputs is None:
        return list(tensors.values())
    model, signature = (
        Model(conversion.tflite("packed", list(tensors)), "the packed target"),
        signatures(conversion.graph)[0],
    )
    fed = feed(conversion, inputs)
    counts = [np.zeros(tensor.high - tensor.low + 1, np.int64) for tensor in tensors.values()]
    for run in range(min(-(-SAMPLES // fed.group), fed.runs)):
        outputs = model.run(signature, list(fed[run].values()))
        for count, tensor, codes in zip(counts, tensors.values(), outputs, strict=True):
            if codes.min() < tensor.low or codes.max() > tensor.high:
                raise ConversionError(f"{tensor.name} left its range {tensor.low} to {tensor.high}: report this")
            count += np.bincount(codes.ravel().astype(np.int64) - tensor.low, minlength=len(count))
    return [
        Activation(**{**vars(tensor), "counts": count}) for tensor, count in zip(tensors.values(), counts, strict=True)
    ]


def _tensors(graph: Graph) -> dict[int, Activation]:
    """The tensors by index: what is quantized and computed, and the model's inputs."""
    clamps = {op.outputs[0]: op.clamp for op in graph.operators if isinstance(op, LinearOp)}
    layers = {op.outputs[0]: op.layer for op in graph.operators if isinstance(op, LinearOp)}
    entries = [(tensor, "input") for tensor in graph.inputs]
    entries += [
        (int(tensor), graph.kind(op)) for op in graph.operators if graph.kind(op) not in _MOVES for tensor in op.outputs
    ]
    found = {}
    for tensor, kind in entries:
        quantization = graph.quantization(tensor)
        if quantization is None:
            continue
        first, last = CODE_RANGES[graph.tensor(tensor).type]
        low, high = clamps.get(tensor, (first, last))
        name = layers.get(tensor) or _readable(graph.name(tensor)) or kind.lower()
        bits = (last - first).bit_length()
        found[tensor] = Activation(name, bits, *quantization, low, high)
    return found


def _readable(name: str) -> str:
    """TensorFlow's converter names a tensor by all that it has fused, with the path to each."""
    parts = [part for part in name.partition(";")[0].split("/") if part not in ("cond", "FakeQuantWithMinMaxVars")]
    return parts[-1] if parts else ""
