"""Sections of `python -m benchmarks.kernels`: convolutional networks, and layers of them by themselves."""

from __future__ import annotations

from collections.abc import Mapping

from subbyte.reports import Timing

from .conv_networks import STOCK_NAMES, ConvNetwork, conv_models, ds_cnn, resnet8, tc_resnet8
from .networks import PACKED_FORMATS
from .plan import Plan, against
from .tables import markdown_table

NETWORKS = (
    ConvNetwork("DS-CNN", ds_cnn),
    ConvNetwork("TC-ResNet8", tc_resnet8),
    ConvNetwork("ResNet-8", resnet8),
)


def pointwise(channels: int, positions: int) -> ConvNetwork:
    """A network of one layer, with as many outputs as inputs."""
    return ConvNetwork(
        f"{channels} to {channels}, {positions} position{'s' if positions > 1 else ''}",
        lambda draft: draft.convolution(draft.input(1, positions, channels), channels),
    )


def convolution(
    height: int, width: int, inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)
) -> ConvNetwork:
    """A network of one layer."""
    window = f"{kernel[0]}x{kernel[1]}" + (f" by {stride[0]}" if max(stride) > 1 else "")
    return ConvNetwork(
        f"{window}, {height}x{width}x{inputs} to {outputs}",
        lambda draft: draft.convolution(draft.input(height, width, inputs), outputs, kernel, stride),
    )


def depthwise(height: int, width: int, channels: int, kernel: tuple[int, int]) -> ConvNetwork:
    """A network of one layer."""
    return ConvNetwork(
        f"{kernel[0]}x{kernel[1]}, {height}x{width}x{channels}",
        lambda draft: draft.depthwise(draft.input(height, width, channels), kernel),
    )


LAYERS = {
    "Pointwise": tuple(pointwise(channels, positions) for channels in (64, 128) for positions in (1, 10, 100)),
    "Wider windows": (
        convolution(32, 32, 16, 16, (3, 3)),
        convolution(16, 16, 32, 32, (3, 3)),
        convolution(8, 8, 64, 64, (3, 3)),
        convolution(1, 49, 24, 24, (1, 9)),
        convolution(32, 32, 3, 16, (3, 3)),
        convolution(49, 10, 1, 64, (10, 4), stride=(2, 2)),
    ),
    "Depthwise": (depthwise(25, 5, 64, (3, 3)), depthwise(16, 16, 128, (3, 3)), depthwise(1, 100, 48, (1, 9))),
}


def conv_networks(plan: Plan) -> str:
    """Microseconds an invoke and file bytes of every format."""
    timings: dict[str, dict[str, Timing]] = {}
    sizes: dict[str, dict[str, int]] = {}
    for network in NETWORKS:
        models = conv_models(network, plan.folder)
        timings[network.name] = plan.time(models)
        sizes[network.name] = {model.name: model.path.stat().st_size for model in models}
    packed = [packed_format.name for packed_format in PACKED_FORMATS]
    return "\n\n".join(
        [
            "Microseconds an invoke, one thread; in brackets, how many times as fast as stock int8.",
            against_int8(timings),
            "How many times as fast as stock int4:",
            markdown_table(
                ["weights", *timings],
                ([name, *(f"{of['int4'].median / of[name].median:.2f}" for of in timings.values())] for name in packed),
            ),
            "Bytes of the file:",
            markdown_table(
                ["weights", *sizes],
                ([name, *(f"{of[name]:,}" for of in sizes.values())] for name in (*packed, *STOCK_NAMES)),
            ),
        ]
    )


def conv_layers(plan: Plan) -> str:
    """Microseconds an invoke of layers by themselves."""
    parts = []
    for title, layers in LAYERS.items():
        parts += [
            f"{title}, microseconds an invoke, one thread; in brackets, how many times as fast as stock int8:",
            against_int8({layer.name: plan.time(conv_models(layer, plan.folder)) for layer in layers}),
        ]
    return "\n\n".join(parts)


def against_int8(timings: Mapping[str, Mapping[str, Timing]]) -> str:
    """A column for each network, a row for each format."""
    names = (*(packed_format.name for packed_format in PACKED_FORMATS), *STOCK_NAMES)
    rows = ([name, *(against(of, name, "int8") for of in timings.values())] for name in names)
    return markdown_table(["weights", *timings], rows)
