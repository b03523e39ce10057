"""The conversion: any source, lifted to integer ops, written for a target."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import from_stock, keras_source
from .errors import ConversionError
from .flatbuffer import TensorType
from .from_markers import lift_markers
from .graph import Graph, readable
from .integer_ops import IntegerOp, LinearOp, is_integer_op
from .io_types import SAME, check_io, set_io
from .layer_names import layer_name
from .loading import check_loads
from .notes import Note, lines
from .preference import check_preference
from .read_model import quantized_source, read_source
from .sizes import Footprint, LayerBytes, float_bytes, layers_of
from .source import Source
from .targets import TARGETS, find_target


@dataclass(frozen=True)
class LayerReport:
    """One row of the report.

    Attributes:
        layer, op: names; `op` is what the target wrote.
        shape: of the kernel, as in Keras.
        weight_bits: bits of one stored weight.
        distinct_values: different weights in the layer.
        weights: how many.
        stored_bytes: of weights, scales and biases in the file, less what it shares with the layers before it.
        sqnr_db: signal to quantization noise of the weights against the float ones; None where nobody knows those.
        zeros: share of the weights that are zero, and were before they were rounded: of a pruned layer, its sparsity.
    """

    layer: str
    op: str
    shape: tuple[int, ...]
    weight_bits: int
    distinct_values: int
    weights: int
    stored_bytes: int
    sqnr_db: float | None
    zeros: float


@dataclass(frozen=True)
class Result:
    """A converted model.

    Attributes:
        tflite: the file.
        layers: a row for each linear op.
        notes: a line for each layer that stayed as it was, and why.
        target, io: as asked for.
        totals: bytes of the whole file as "float32" (computed: 4 bytes a weight and bias), "int8", "int4" and "packed".
        post_training: what quantization without training did, a `subbyte.keras_layers.PostTraining`; else None.
    """

    tflite: bytes
    layers: list[LayerReport]
    notes: list[str]
    target: str
    io: str
    totals: dict[str, int] = field(default_factory=dict)
    post_training: Any = None


def convert(
    model: Any,
    target: str = "packed",
    io: str | None = None,
    bits: int | None = None,
    first_last_bits: int = 8,
    calibration: Any = None,
    prefer: str | None = "bytes",
) -> Result:
    """Converts a model to TFLite with 1 to 8-bit weights.

    Args:
        model: a Keras model that has been through stage 2; the path of a `.keras` file, of a SavedModel folder or of an
            int8 or uint8 `.tflite`; or the bytes of one.
        target: "packed" for the bundled kernel; "int8" for stock ops in 8-bit containers, with the same numbers; "int4"
            for stock 4-bit ops where the weights allow it.
        io: type of inputs and outputs: "float32"; "int8" or "uint8"; "int16" for models with 16-bit activations; "same"
            for those that a `.tflite` has. By default a `.tflite` keeps its own, and a Keras model gets "float32".
        bits: 1 to 8. The weights of an int8 or uint8 `.tflite` are requantized to so many bits; those of a float Keras
            model are quantized without training, if there is a calibration.
        first_last_bits: with `bits`, those of the first and the last layer.
        calibration: for a float Keras model, real inputs: see `subbyte.keras_layers.quantize_post_training`.
        prefer: which layers of an int8 `.tflite` are packed without `bits`: those that make the file smaller, "bytes",
            or those of them that run faster on this machine, "speed"; None packs every layer that can be.

    Raises:
        ConversionError: what cannot be converted, with the layer and the mend in one line.
    """
    find_target(target)
    return Conversion.start(
        model, io, bits, first_last_bits, calibration, prefer if target == "packed" else None
    ).write(target)


class Conversion:
    """A model lifted once, to be written for several targets."""

    def __init__(
        self,
        graph: Graph,
        notes: list[str],
        io: str,
        source: Source,
        bits: int | None = None,
        must_shrink: bool = False,
    ) -> None:
        self.graph, self.notes, self.io, self.source, self.bits = graph, notes, io, source, bits
        self._must_shrink = must_shrink

    @classmethod
    def start(
        cls,
        model: Any,
        io: str | None = None,
        bits: int | None = None,
        first_last_bits: int = 8,
        calibration: Any = None,
        prefer: str | None = "bytes",
    ) -> Conversion:
        """Reads and lifts `model`; see `convert`."""
        check_io(io)
        check_preference(prefer)
        source = _read(model, bits, first_last_bits, calibration)
        requantized = bits if calibration is None else None
        graph = Graph.read(source.tflite, source.name)
        graph.layer_names = source.layer_names
        if source.reference is None:
            from_stock.check_quantized(graph, source.name)
        else:
            keras_source.check_ops(graph)
        lift_markers(graph, dict(source.taps), source.constants)
        without_loss = source.reference is None and bits is None
        notes = from_stock.lift_stock(graph, requantized, first_last_bits, prefer if without_loss else None)
        notes += _wide_ends(graph, bits)
        if source.reference is not None:
            notes = [*(_left_notes(source.post_training) if source.post_training else _rounded_notes(graph)), *notes]
        is_keras = source.reference is not None
        io = _io(io, is_keras)
        notes += [*lines(set_io(graph, io, is_keras)), *_other_signatures(graph)]
        graph.model.description = b"subbyte"
        graph.free_batch()
        graph.keep_metadata(source.reference is None)
        for side in ("inputs", "outputs"):
            for name, tensor in graph.named(side).items():
                graph.tensor(tensor).name = name.encode()
        return cls(graph, notes, io, source, requantized, without_loss and prefer is not None)

    @property
    def integer_ops(self) -> list[IntegerOp]:
        return [op for op in self.graph.operators if is_integer_op(op)]

    @property
    def linear_ops(self) -> list[LinearOp]:
        return [op for op in self.graph.operators if isinstance(op, LinearOp)]

    def write(self, target: str = "packed") -> Result:
        """The model for `target`, with the report."""
        find_target(target)
        if not self.linear_ops:
            reasons = "; ".join(self.notes) or "it has no layer with weights"
            raise ConversionError(f"nothing to pack in this model: {reasons}{self._mend()}")
        files = {name: self.tflite(name) for name in TARGETS}
        if target == "packed" and self._must_shrink:
            self._check_shrunk(files)
        check_loads(files[target], self.source.name)
        packed = self.sizes(files["packed"])
        unpacked = len(files["packed"]) - sum(size.total for _, size in packed)
        return Result(
            tflite=files[target],
            layers=[
                _row(op, size, TARGETS[target].weight_bits(op))
                for op, size in self.sizes(files[target])
                if isinstance(op, LinearOp)
            ],
            notes=[*self.notes, *self._float_notes()],
            target=target,
            io=self.io,
            totals={
                "float32": unpacked + sum(float_bytes(packed)),
                **{name: len(file) for name, file in files.items()},
            },
            post_training=self.source.post_training,
        )

    def original(self) -> tuple[str, bytes]:
        """What a written file is compared with, and its name: the `.tflite` that was given, else stock int8."""
        if self.source.reference is None:
            return "the original", self.source.tflite
        return "stock int8", self.tflite("int8")

    def _check_shrunk(self, files: dict[str, bytes]) -> None:
        """Raises ConversionError where the packed file is no smaller: than the original where it has its ends."""
        original = Graph.read(self.source.tflite)
        types = [
            [graph.tensor(int(tensor)).type for tensor in (*graph.inputs, *graph.outputs)]
            for graph in (original, self.graph)
        ]
        limit = len(self.source.tflite if types[0] == types[1] else files["int8"])
        if len(files["packed"]) >= limit:
            raise ConversionError(
                f"nothing to gain in {self.source.name}: packed it would take {len(files['packed']):,} bytes in the "
                f"place of {limit:,}; --bits gives its weights fewer bits"
            )

    def _mend(self) -> str:
        """What else can be tried where nothing packs."""
        if self.bits is not None or self.source.post_training is not None:
            return ""
        if self.source.reference is None:
            return "; --bits requantizes an int8 .tflite"
        return "; --bits with --calibration quantizes a float Keras model"

    def tflite(self, target: str, expose: Sequence[int] = ()) -> bytes:
        """The file alone; the tensors to `expose` become its outputs, in the place of its own."""
        graph = self.graph.copy()
        if expose:
            graph.main.outputs = list(expose)
            for tensor in expose:  # Python cannot ask for an output with a name in Latin-1
                graph.tensor(tensor).name = graph.name(tensor).encode()
            graph.model.signatureDefs = None
        for op in [op for op in graph.operators if is_integer_op(op)]:
            graph.replace(op, TARGETS[target].write(graph, op))
        graph.prune()
        return graph.write()

    def sizes(self, tflite: bytes) -> list[tuple[Any, LayerBytes]]:
        """The ops with weights, `LinearOp` and stock ones, and what each takes in a file written from this model."""
        graph = Graph(copy.copy(self.graph.model))
        graph.main = copy.copy(graph.main)
        graph.prune_operators()
        return list(zip(layers_of(graph), Footprint.of(tflite).layers, strict=True))

    def _float_notes(self) -> list[str]:
        """Stock ops that run in float between quantized ones: slow on a device, and off the numbers' promise."""
        mend = ": put QuantActivation behind it to make it int8" if self.source.reference is not None else ""
        notes = []
        for op in self.graph.operators:
            kind = self.graph.kind(op)
            if is_integer_op(op) or kind in ("QUANTIZE", "DEQUANTIZE", "CAST"):
                continue
            if any(self.graph.tensor(int(output)).type == TensorType.FLOAT32 for output in op.outputs):
                notes.append(Note(layer_name(self.graph, op), f"runs in float ({kind}){mend}"))
        return lines(notes)


def _read(model: Any, bits: int | None, first_last_bits: int, calibration: Any) -> Source:
    """The source of a model. Raises ConversionError for bits that do not exist or do not fit the kind of model."""
    for name, width in (("bits", bits), ("first_last_bits", first_last_bits)):
        if width is not None and width not in range(1, 9):
            raise ConversionError(f"{name} must be 1 to 8, not {width}")
    if calibration is not None:
        return quantized_source(model, bits, first_last_bits, calibration)
    source = read_source(model)
    if bits is not None and source.reference is not None:
        raise ConversionError(
            "--bits requantizes an int8 .tflite, or a float Keras model together with --calibration; a model with "
            "subbyte layers has their widths: give those to their kernel_quantizer"
        )
    return source


def _io(io: str | None, is_keras: bool) -> str:
    """The type of the ends that is meant: a Keras model's own are float32."""
    if io is None or io == SAME:
        return "float32" if is_keras else SAME
    return io


def _row(op: LinearOp, size: LayerBytes, weight_bits: int) -> LayerReport:
    return LayerReport(
        layer=op.layer,
        op=size.op,
        shape=op.kernel_shape,
        weight_bits=weight_bits,
        distinct_values=len(np.unique(op.weights)),
        weights=op.weights.size,
        stored_bytes=size.total,
        sqnr_db=op.sqnr_db(),
        zeros=_zeros(op),
    )


def _zeros(op: LinearOp) -> float:
    """Share of the weights that are zero not by rounding."""
    zero = op.weights == 0
    return float(np.mean(zero if op.real_weights is None else zero & (op.real_weights == 0)))


def _other_signatures(graph: Graph) -> list[str]:
    """What is said of signatures that run another subgraph: only the first is looked at."""
    return lines(
        Note(
            f"signature {readable(definition.signatureKey or b'')!r}",
            "runs a subgraph of its own, which stays as it was",
        )
        for definition in graph.model.signatureDefs or []
        if definition.subgraphIndex != 0
    )


def _wide_ends(graph: Graph, bits: int | None) -> list[str]:
    """A line where the first and the last layer have more than `bits` bits and hold most of the weights."""
    ops = [op for op in graph.operators if isinstance(op, LinearOp)]
    if bits is None or not ops:
        return []
    wide = [op for op in {id(op): op for op in (ops[0], ops[-1])}.values() if op.grid.bits > bits]
    share = sum(op.weights.size for op in wide) / sum(op.weights.size for op in ops)
    if share <= 0.5:
        return []
    names = " and ".join(f"{op.layer} ({op.grid.bits} bits)" for op in wide)
    return [
        f"{share:.0%} of the weights are in the first and the last layer, which --bits does not narrow, {names}: "
        f"--first_last_bits={bits} does"
    ]


def _rounded_notes(graph: Graph) -> list[str]:
    """Stock layers in a Keras model whose float weights TensorFlow's converter has rounded to 8 bits."""
    text = (
        "is a stock layer: its weights were rounded to 8 bits in the conversion, unlike in Keras; make it a QuantDense"
    )
    return lines(Note(op.layer, text) for op in graph.operators if isinstance(op, LinearOp) and op.stock)


def _left_notes(made: Any) -> list[str]:
    """What quantization without training has left in float: lines that begin with the layer's name."""
    return lines(Note(*line.split(" ", 1)) for line in made.left)
