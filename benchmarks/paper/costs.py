"""What the models of tables 1, 3 and 5 take: microseconds, memory while they run, bytes of the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subbyte.converter import image
from subbyte.reports import Footprint, arena_bytes, microseconds

from ..tables import figure, markdown_table
from .evaluation import tflite_of


@dataclass(frozen=True)
class Cost:
    """The paper's figures of one model, and the stock model that ours is timed beside.

    Attributes:
        name: of the configuration.
        cycles: millions a second, on an Arm processor; None where the paper has none.
        memory, size: KB while it runs, and of the model; of ours None.
        peer: name of the stock format in the table.
    """

    name: str
    cycles: float | None
    memory: float | None
    size: float | None
    peer: str


COSTS = (
    Cost("M0", 37.6, 912, 912, "float32"),
    Cost("M1", 18.8, 228, 228, "int16 x int8"),
    Cost("M2", 10.3, 228, 228, "int8"),
    Cost("M3", 10.3, 228, 142, "int8"),
    Cost("M4", 10.3, 228, 114, "int8"),
    Cost("M5-drop", None, 128, 128, "int8"),
    Cost("M6-drop", None, 198, 198, "int8"),
    Cost("recommended", None, None, None, "int8"),
)
HEADER = (
    "model",
    "paper: MCPS",
    "of M0",
    "µs an inference",
    "of M0",
    "µs of the stock model",
    "paper: memory, KB",
    "weights in memory, KB",
    "activations, KB",
    "paper: size, KB",
    "parameters, KB",
    "image for firmware, KB",
    ".tflite, KB",
)


def with_two_outputs(network: Any) -> Any:
    """A trained model with the first two of its outputs alone, as many as the paper's have."""
    import tensorflow as tf

    config = network.get_config()
    last = next(layer for layer in reversed(config["layers"]) if "units" in layer["config"])
    outputs, last["config"]["units"] = last["config"]["units"], 2
    small = type(network).from_config(config)
    if not small.built:
        small.build((None, *network.input_shape[1:]))
    values = [
        value[..., :2] if value.shape and value.shape[-1] == outputs and place.shape[-1] == 2 else value
        for value, place in zip(network.get_weights(), small.weights, strict=True)
    ]
    small.set_weights(values)
    assert isinstance(small, tf.keras.Model)
    return small


@dataclass(frozen=True)
class Built:
    """The files of one trained model."""

    packed: bytes
    stock: bytes
    small: bytes
    parameters: int  # bytes of the small file's weights, as many bits as they have, and of their records
    image: bytes | None  # of the small file; None where firmware has the interpreter


def build(path: Path) -> Built:
    """Builds a .keras file as deployed, as the stock model of the same numbers, and with two outputs."""
    import tensorflow as tf

    from subbyte import converter, keras_layers
    from subbyte.keyword_spotting.demo import stock_tflite

    network = tf.keras.models.load_model(path, compile=False)
    small = with_two_outputs(network)
    if not any(isinstance(layer, keras_layers.QuantInput) for layer in network.layers):
        stock = stock_tflite(network)
        return Built(stock, stock, stock_tflite(small), sum(4 * weight.size for weight in small.get_weights()), None)
    found = converter.convert(small, io="int8" if _is_int8(network) else "float32")
    weights = sum(-(-layer.weights * layer.weight_bits // 8) for layer in found.layers)
    try:
        binary = image(found.tflite)
    except converter.ConversionError:  # convolutions, or 16-bit activations
        binary = None
    return Built(
        tflite_of(path).read_bytes(),
        converter.convert(network, target="int8").tflite,
        found.tflite,
        weights + Footprint.of(found.tflite).records,
        binary,
    )


def _is_int8(network: Any) -> bool:
    return all(layer.deployment.input_bits == 8 for layer in network.layers if hasattr(layer, "deployment"))


def cost_table(paths: dict[str, Path]) -> str:
    """Markdown; `paths` are the .keras files of one seed by configuration. Times are taken in turn, here and now."""
    built = {cost.name: build(paths[cost.name]) for cost in COSTS if cost.name in paths}
    files = {f"{name} packed": files.packed for name, files in built.items()}
    timed, _ = microseconds(files | {f"{name} stock": files.stock for name, files in built.items()})

    def rows() -> Iterator[list[str]]:
        for cost in COSTS:
            if cost.name not in built:
                continue
            found, zero = built[cost.name], COSTS[0]
            own, base = (1e6 * timed[f"{name} packed"].median for name in (cost.name, zero.name))
            weights = len(found.packed) if cost.name != "M0" else found.parameters
            yield [
                cost.name.removesuffix("-drop"),
                "-" if cost.cycles is None else f"{cost.cycles:g}",
                "-" if cost.cycles is None else f"{cost.cycles / (zero.cycles or 1):.2f}",
                figure(own),
                f"{own / base:.2f}",
                f"{figure(1e6 * timed[f'{cost.name} stock'].median)} ({cost.peer})",
                "-" if cost.memory is None else f"{cost.memory:g}",
                _kilobytes(weights),
                _kilobytes(arena_bytes(found.packed)),
                "-" if cost.size is None else f"{cost.size:g}",
                _kilobytes(found.parameters),
                "-" if found.image is None else _kilobytes(len(found.image)),
                _kilobytes(len(found.small)),
            ]

    return markdown_table(HEADER, rows())


def _kilobytes(size: int) -> str:
    """A number of bytes in units of 1024."""
    return f"{size / 1024:.1f}"
