"""Models that TensorFlow Model Optimization (TFMOT) has wrapped, told apart by the names of its classes alone."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

#: The class of a layer of TFMOT to what it makes of a model, and the mend.
_KINDS = {
    "QuantizeLayer": ("quantized to 8 bits by TFMOT", "start from the float model that it was made from"),
    "QuantizeWrapper": ("quantized to 8 bits by TFMOT", "start from the float model that it was made from"),
    "QuantizeWrapperV2": ("quantized to 8 bits by TFMOT", "start from the float model that it was made from"),
    "QuantizeAnnotate": (
        "annotated for TFMOT",
        "give it to tfmot.quantization.keras.quantize_apply(model, scheme=SubbyteScheme()), or start from the model "
        "without annotations",
    ),
    "PruneLowMagnitude": ("being pruned by TFMOT", "give tfmot.sparsity.keras.strip_pruning(model)"),
    "ClusterWeights": ("being clustered by TFMOT", "give tfmot.clustering.keras.strip_clustering(model)"),
}


def mend_of(text: str) -> tuple[str, str] | None:
    """(what a model is, the mend) of one whose configuration as JSON has layers of TFMOT; else None."""
    return next((said for kind, said in _KINDS.items() if f'"class_name": "{kind}"' in text), None)


def refuse_wrapped(model: Any) -> None:
    """Raises ValueError for a model with layers of TFMOT, at any depth, which is no float model any more."""
    for layer in getattr(model, "layers", ()):
        if type(layer).__module__.startswith("tensorflow_model_optimization") and type(layer).__name__ in _KINDS:
            state, mend = _KINDS[type(layer).__name__]
            raise ValueError(f"{model.name} is {state} ({layer.name}, {type(layer).__name__}): {mend}")
        if isinstance(layer, tf.keras.Model):
            refuse_wrapped(layer)
