"""Fewer than 8 bits in the words of TensorFlow Model Optimization (TFMOT), which works with tf-keras alone.

    import tensorflow_model_optimization as tfmot
    from subbyte.keras_layers.tfmot import SubbyteConfig, SubbyteScheme

    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    quantized = tfmot.quantization.keras.quantize_apply(annotated, scheme=SubbyteScheme(bits=4))

`quantized` is what `quantize_model` makes, not TFMOT's wrappers: it trains with `TwoStage` and needs no quantize_scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import tensorflow as tf
import tensorflow_model_optimization as tfmot

from . import quantizers
from .quantize import build_twin
from .quantizers import Quantizer
from .recipe import Recipe

if not issubclass(tfmot.quantization.keras.QuantizeWrapperV2, tf.keras.layers.Layer):
    raise ImportError("TFMOT works with tf-keras: set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported")

#: Behind the name of a separable convolution: its halves, each quantized by itself.
_HALVES = ("_depthwise", "_pointwise")


@tf.keras.utils.register_keras_serializable(package="subbyte")
class SubbyteConfig(tfmot.quantization.keras.QuantizeConfig):
    """What one layer differs in from the scheme.

        tfmot.quantization.keras.quantize_annotate_layer(layer, SubbyteConfig(bits=2))

    Args:
        bits: 1 to 8; the scheme's recipe makes the quantizer.
        quantizer: from `quantizers`, in the place of `bits`.

    Raises:
        ValueError: both or neither; bits that do not exist.
    """

    def __init__(self, bits: int | None = None, quantizer: Quantizer | dict[str, Any] | None = None) -> None:
        if (bits is None) == (quantizer is None):
            raise ValueError(
                "SubbyteConfig takes either bits or a quantizer; without a config a layer has the scheme's"
            )
        if bits is not None:
            quantizers.Linear(bits)  # checks it
        self.bits = bits
        self.quantizer = None if quantizer is None else quantizers.get(quantizer)

    def get_config(self) -> dict[str, Any]:
        serialized = None if self.quantizer is None else tf.keras.utils.serialize_keras_object(self.quantizer)
        return {"bits": self.bits, "quantizer": serialized}

    # What another scheme asks of the config of a layer that it wraps.

    def get_weights_and_quantizers(self, layer: tf.keras.layers.Layer) -> NoReturn:
        raise ValueError(
            f"{layer.name} is annotated with SubbyteConfig, which needs its own scheme: "
            "quantize_apply(model, scheme=SubbyteScheme())"
        )

    get_activations_and_quantizers = get_output_quantizers = get_weights_and_quantizers

    def set_quantize_weights(self, layer: tf.keras.layers.Layer, quantize_weights: list[Any]) -> NoReturn:
        self.get_weights_and_quantizers(layer)

    set_quantize_activations = set_quantize_weights


class SubbyteScheme(tfmot.quantization.keras.QuantizeScheme):
    """A scheme for `quantize_apply`: annotated layers become this package's, the others with weights stay in float.

    Args:
        bits: of the weights, 1 to 8.
        calibration: as in `quantize_model`.
        recipe: instead of `bits` and further arguments.
        **arguments: further ones of `Recipe`.

    Raises:
        ValueError: bits that do not exist; a recipe and arguments.
    """

    def __init__(
        self, bits: int | None = None, calibration: Any = None, recipe: Recipe | None = None, **arguments: Any
    ) -> None:
        if bits is not None:
            arguments["bits"] = bits
        if recipe is not None and arguments:
            raise ValueError(f"SubbyteScheme takes either a recipe or its arguments, not both: {', '.join(arguments)}")
        self.recipe = recipe or Recipe(**arguments)
        self.recipe.quantizer(self.recipe.bits)  # checks the bits
        self.calibration = calibration

    def get_layout_transformer(self) -> tfmot.quantization.keras.QuantizeLayoutTransform:
        return _ToTwin(self.recipe, self.calibration)

    def get_quantize_registry(self) -> tfmot.quantization.keras.QuantizeRegistry:
        return _NothingLeft()


class _NothingLeft(tfmot.quantization.keras.QuantizeRegistry):
    """The layout transform has quantized everything."""

    def supports(self, layer: tf.keras.layers.Layer) -> bool:
        return False

    def get_quantize_config(self, layer: tf.keras.layers.Layer) -> None:
        return None


class _ToTwin(tfmot.quantization.keras.QuantizeLayoutTransform):
    def __init__(self, recipe: Recipe, calibration: Any) -> None:
        self._recipe, self._calibration = recipe, calibration

    def apply(
        self, model: tf.keras.Model, layer_quantize_map: Mapping[str, dict[str, Any]]
    ) -> tuple[tf.keras.Model, dict[str, Any]]:
        """The twin of `model`, and that no layer of it is to be wrapped."""
        annotations = {
            name: metadata["quantize_config"]
            for name, metadata in layer_quantize_map.items()
            if "quantize_config" in metadata  # TFMOT adds inputs, without one
        }
        layers = {name: model.get_layer(name) for name in annotations}
        for name, layer in layers.items():
            _check_config(layer, annotations[name])
        recipe = _Annotated(**vars(self._recipe), annotations=annotations)
        twin = build_twin(model, recipe, self._calibration, keeps_output_names=False)
        for name, layer in layers.items():
            is_folded_or_stays = isinstance(layer, tf.keras.layers.BatchNormalization) or not layer.weights
            wanted = not is_folded_or_stays and recipe.quantizer_of(name, is_first_or_last=False) is not None
            if wanted and not {name, name + _HALVES[0]}.intersection(twin.quantized):
                raise ValueError(
                    f"{name} ({type(layer).__name__}) cannot be quantized: annotate the other layers alone, by "
                    "quantize_annotate_layer, and it stays in float"
                )
        return twin.model, {}


def _check_config(layer: tf.keras.layers.Layer, config: Any) -> None:
    if config is None:
        return
    if not isinstance(config, SubbyteConfig):
        raise ValueError(
            f"{layer.name} is annotated with {type(config).__name__}, which SubbyteScheme cannot read: give it a "
            "SubbyteConfig, or none"
        )
    if not layer.weights:
        raise ValueError(f"{layer.name} is annotated with a SubbyteConfig but has no weights: annotate it without one")


@dataclass(frozen=True)
class _Annotated(Recipe):
    """A recipe for annotated layers alone.

    Attributes:
        annotations: name of a layer to its config, or None where it has no own.
    """

    annotations: Mapping[str, SubbyteConfig | None] = field(default_factory=dict)

    def quantizer_of(self, name: str, is_first_or_last: bool) -> Quantizer | None:
        names = (name, *(name.removesuffix(half) for half in _HALVES))
        found = next((other for other in names if other in self.annotations), None)
        if found is None:
            return None
        config = self.annotations[found]
        if config is None:
            return super().quantizer_of(name, is_first_or_last)
        return config.quantizer or self.quantizer(config.bits or self.bits)
