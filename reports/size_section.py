"""The bytes of a conversion in every target: of the whole file by what they are for, and of each layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from subbyte.converter import Conversion, Footprint, LayerBytes, LinearOp, Result
from subbyte.converter.layer_names import layer_name
from subbyte.converter.sizes import float_bytes
from subbyte.converter.wording import TITLES, total_cells

from . import figures, measuring
from .page import Plot, Section, Table

_SENTENCE = (
    "Weights are those of the packed planes, with what fills their last blocks. Records are what each channel has "
    "besides: multipliers and biases, and in stock files scales and zero points; codebooks too. Padding is the header "
    "of a packed layer and what aligns its parts. Everything else is the graph: tensors, operators, names. float32 is "
    "computed, 4 bytes for each weight and bias, the rest as in the packed file."
)


@dataclass(frozen=True)
class _Sizes:
    """The same layers in every target.

    Attributes:
        names: of the layers.
        packed: where the bytes of the packed file are.
        totals: by target, bytes of each layer and then of everything else; they add up to the file.
        parts: by target, bytes of the whole file by what they are for.
    """

    names: list[str]
    packed: Footprint
    totals: dict[str, list[int]]
    parts: dict[str, dict[str, int]]

    @classmethod
    def of(cls, conversion: Conversion, files: dict[str, bytes]) -> _Sizes:
        layers = conversion.sizes(files["packed"])
        names = [op.layer if isinstance(op, LinearOp) else layer_name(conversion.graph, op) for op, _ in layers]
        found = {target: Footprint.of(files[target]) for target in ("int8", "int4", "packed")}
        packed, floating = found["packed"], float_bytes(layers)
        totals = {"float32": [*floating, packed.everything_else]}
        parts = {"float32": {"weights": sum(floating), "everything else": packed.everything_else}}
        for target, footprint in found.items():
            totals[target] = [*(layer.total for layer in footprint.layers), footprint.everything_else]
            parts[target] = footprint_parts(footprint)
        return cls(names, packed, totals, parts)


def size_section(conversion: Conversion, result: Result, files: dict[str, bytes]) -> Section:
    """The section of sizes.

    Args:
        conversion, result: as in `conversion_page`.
        files: by target, with "float32" where there is a float model.
    """
    sizes = _Sizes.of(conversion, files)
    whole = figures.stacked_bars(
        "whole", {title: sizes.parts[target] for target, title in TITLES.items()}, "bytes", "Bytes of the whole file"
    )
    series = {title: sizes.totals[target] for target, title in TITLES.items()}
    bars = figures.grouped_bars("layers", [*sizes.names, "everything else"], series, "bytes", "Bytes of each layer")
    parts: list[Table | Plot] = [
        _whole_table(result, files),
        Plot(whole, "The whole file, in bytes, by what they are for"),
        _layer_table(sizes),
        Plot(bars, "Bytes of each layer in each target"),
    ]
    return Section("size", "Size", [_SENTENCE], parts)


def _layer_table(sizes: _Sizes) -> Table:
    packed = sizes.packed
    others = list(zip(*(sizes.totals[target] for target in ("int4", "int8", "float32")), strict=True))
    rows = [
        (name, str(layer.bits), *_cells(layer, packed.file), *_thousands(sizes_of_others))
        for name, layer, sizes_of_others in zip(sizes.names, packed.layers, others[:-1], strict=True)
    ]
    rest = packed.everything_else
    files = [sum(sizes.totals[target]) for target in ("int4", "int8", "float32")]
    sums = [
        ("everything else", *[""] * 4, f"{rest:,}", f"{rest / packed.file:.1%}", *_thousands(others[-1])),
        (
            *("file", ""),
            *_thousands((packed.weights, packed.records, packed.rest, packed.file)),
            "100.0%",
            *_thousands(files),
        ),
    ]
    columns = ("layer", "bits", "weights", "records", "padding", "packed", "share", "int4", "int8", "float32")
    return Table("Bytes of each layer in the packed file, and in the others", columns, rows, sums)


def _cells(layer: LayerBytes, file: int) -> tuple[str, ...]:
    return *_thousands((layer.weights, layer.records, layer.rest, layer.total)), f"{layer.total / file:.1%}"


def _thousands(values: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{value:,}" for value in values)


def footprint_parts(footprint: Footprint) -> dict[str, int]:
    """The parts of a file, for `figures.stacked_bars`."""
    return {
        "weights": footprint.weights,
        "records": footprint.records,
        "padding": footprint.rest,
        "everything else": footprint.everything_else,
    }


def _whole_table(result: Result, files: dict[str, bytes]) -> Table:
    floating = result.totals["float32"]
    rows = [
        (*cells, f"{floating / result.totals[target]:.2f}", _arena(target, files))
        for target, cells in total_cells(result).items()
    ]
    columns = ("target", "file, bytes", "of float32", "times smaller", "arena, bytes")
    caption = (
        "The whole file, and the arena: the memory that the interpreter takes for activations, from the first to the "
        "last byte. The packed kernels' scratch memory is in it, that of stock ops is not; stock files run without "
        "XNNPACK here, which keeps its own"
    )
    return Table(caption, columns, rows)


def _arena(target: str, files: dict[str, bytes]) -> str:
    if target == "int4":
        return "as int8"
    if target not in files:
        return "no float model"
    try:
        return f"{measuring.arena_bytes(files[target]):,}"
    except (RuntimeError, ValueError) as error:
        return f"refused: {str(error).strip().splitlines()[0]}"
