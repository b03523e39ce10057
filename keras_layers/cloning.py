"""Copies of float layers, with all that their configuration, training and adaptation gave them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from . import layer_state, numerics

layers = tf.keras.layers


def clone(layer: Any, name: str, **changes: Any) -> Any:
    """A layer (or operation) of its own like `layer`; `copy_state` makes it compute the same once it is built.

    Functions and objects that were given to the layer, such as a lambda or a regularizer of a class that is not
    registered, are shared with it. Mixed precision becomes float32, in layers inside the layer as well: between
    quantized layers half floats would be conversions on the device, which has int8 there.

    Args:
        layer: any.
        name: of the copy.
        changes: other entries of the configuration that are to differ.

    Raises:
        ValueError: a layer that its class cannot make anew from its configuration.
    """
    classes = {type(part).__name__: type(part) for path, part in layer_state.parts(layer) if path}
    try:
        with tf.keras.utils.custom_object_scope(classes):
            copy = _made_anew(layer, {"name": name, **changes})
    except (TypeError, ValueError, NotImplementedError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{layer.name} ({type(layer).__name__}) cannot be copied: {_first_line(error)}; its class needs a "
            "get_config that from_config takes, and what is in it tf.keras.utils.register_keras_serializable"
        ) from error
    # What such a layer gives, its shape included, depends on what it has seen.
    for part, other in _parts(layer, copy):
        if not _is_of_keras(type(part)):  # Keras's own have all of that in their configuration
            for key, value in layer_state.values(part).items():
                setattr(other, key, value)
        _copy_vocabulary(part, other)
    if hasattr(layer, "adapt") and layer.built and not copy.built:
        shapes = layer.get_build_config() or {}
        if shapes.get("input_shape") is not None:
            copy.build_from_config(shapes)
            copy_state(layer, copy)
    return copy


def _made_anew(layer: Any, changes: dict[str, Any]) -> Any:
    """What the layer's class makes of its configuration and what stands in no configuration."""
    config = {**_in_float32(layer.get_config()), **changes}
    live = {key: value for key in config if key not in changes and (value := _live(layer, key)) is not None}
    if isinstance(layer, layers.Lambda):
        return _lambda(layer, config)
    taken = inspect.signature(type(layer).__init__).parameters
    anyhow = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    return type(layer).from_config({**config, **{key: live[key] for key in live if anyhow or key in taken}})


def _in_float32(config: Any) -> Any:
    """A layer's configuration without mixed precision."""
    if isinstance(config, list | tuple):  # tf-keras has lists of a class of its own, which no generator makes
        items = [_in_float32(item) for item in config]
        return tuple(items) if isinstance(config, tuple) else items
    if not isinstance(config, dict):
        return config
    plain = {key: _in_float32(value) for key, value in config.items()}
    return numerics.in_float32(plain) if "dtype" in plain else plain


def copy_state(layer: Any, copy: Any) -> None:
    """Gives a built copy all that `layer` keeps, see `layer_state`.

    Raises:
        ValueError: a copy with other variables.
    """
    variables, others = layer_state.variables(layer), layer_state.variables(copy)
    # Keras makes what it keeps under private names when it needs it, such as the steps of `adapt`.
    if any("/_" not in path for path in variables.keys() ^ others.keys()):
        raise ValueError(
            f"{layer.name} ({type(layer).__name__}) cannot be copied: of its {len(variables)} variables its copy has "
            f"{len(others)}; make all of them in build()"
        )
    for path in variables.keys() & others.keys():
        others[path].assign(tf.convert_to_tensor(variables[path]))
    for part, other in _parts(layer, copy):
        if hasattr(part, "finalize_state") and not hasattr(part, "get_vocabulary") and part.variables:
            other.finalize_state()  # of a Normalization or Discretization: from the variables to what is computed with


def _copy_vocabulary(layer: Any, copy: Any) -> None:
    is_outer = any(hasattr(part, "get_vocabulary") for path, part in layer_state.parts(layer) if path)
    if is_outer or not hasattr(layer, "get_vocabulary") or layer.get_config().get("vocabulary") is not None:
        return  # TextVectorization's is that of the lookup in it; one that was given is in the configuration
    vocabulary = layer.get_vocabulary()
    weights = {}
    if getattr(layer, "output_mode", None) == "tf_idf":
        weights["idf_weights"] = np.asarray(layer.idf_weights)[: len(vocabulary)]
    copy.set_vocabulary(vocabulary, **weights)


def _parts(layer: Any, copy: Any) -> Iterator[tuple[Any, Any]]:
    """The layer and the layers in it, each with its copy, the inner ones first."""
    others = dict(layer_state.parts(copy))
    return ((part, others[path]) for path, part in layer_state.parts(layer) if path in others)


def _live(layer: Any, key: str) -> Any:
    """What the layer holds under a key of its configuration, where that is a function or an object with no name."""
    if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda", "ClassMethod"):
        return None  # a TensorFlow function that tf-keras finds by its name
    value = getattr(layer, key, None)
    of_keras = (tf.keras.regularizers.Regularizer, tf.keras.constraints.Constraint, tf.keras.initializers.Initializer)
    is_function = inspect.isfunction(value) and not _is_of_keras(value)
    is_object = isinstance(value, of_keras) and not _is_of_keras(type(value))
    return value if is_function or is_object else None


def _is_of_keras(thing: Any) -> bool:
    """Whether Keras has the function or class, and so finds it by its name."""
    return thing.__module__.split(".")[0] in ("keras", "tf_keras")


def _lambda(layer: Any, config: dict[str, Any]) -> Any:
    """A Lambda with the same function: from its configuration Keras would make another, or refuse it as unsafe."""
    own = {"function": layer.function, "arguments": dict(layer.arguments or {})}
    for key in ("output_shape", "mask"):
        value = getattr(layer, f"_{key}", None) if key == "output_shape" else getattr(layer, key, None)
        own[key] = value if callable(value) and not inspect.ismethod(value) else config.get(key)
    kept = {key: config[key] for key in ("name", "dtype", "trainable") if key in config}
    return type(layer)(**own, **kept)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= 120 else f"{line[:120]}..."
