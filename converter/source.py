"""A model on its way: what every way into the converter reads it into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Source:
    """A TFLite graph in which our layers are whole, and what else is known of the model.

    Attributes:
        tflite: TensorFlow's conversion, our layers whole; its outputs are the model's, then those of the taps.
        name: for messages.
        taps: (signature output, layer) of each activation quantizer.
        post_training: what quantization without training did, a `subbyte.keras_layers.PostTraining`; or None.
        reference: the model in TensorFlow: inputs by name, [samples, ...] each, to outputs and taps by name; or None.
        layer_names: what the user calls the layers, where that is known; TensorFlow joins them to paths.
        constants: of marked layers that have none in the graph: weights, scale, offset and real weights, by the option
            "constants" of the layer's op.
        floating: makes the stock float .tflite of what was quantized without training; None where nothing was.
    """

    tflite: bytes
    name: str
    taps: tuple[tuple[str, str], ...] = ()
    reference: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    post_training: Any = None
    layer_names: tuple[str, ...] = ()
    constants: tuple[list[np.ndarray], ...] = ()
    floating: Callable[[], bytes] | None = None
