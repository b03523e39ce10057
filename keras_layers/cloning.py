"""Copies of float layers, with all that their configuration, training and adaptation gave them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from . import numerics

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
    try:
        config = {**_in_float32(layer.get_config()), "name": name, **changes}
        live = {key: value for key in config if key not in changes and (value := _live(layer, key)) is not None}
        if isinstance(layer, layers.Lambda):
            copy = _lambda(layer, config)
        elif live:
            taken = inspect.signature(type(layer).__init__).parameters
            anyhow = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
            copy = type(layer).from_config({**config, **{k: v for k, v in live.items() if anyhow or k in taken}})
        else:
            copy = type(layer).from_config(config)
    except (TypeError, ValueError, NotImplementedError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{layer.name} ({type(layer).__name__}) cannot be copied: {_first_line(error)}; its class needs a "
            "get_config that from_config takes, and what is in it tf.keras.utils.register_keras_serializable"
        ) from error
    # What such a layer gives, its shape included, depends on what it has seen.
    for part, other in _parts(layer, copy):
        _copy_vocabulary(part, other)
    if hasattr(layer, "adapt") and layer.built and not copy.built:
        shapes = layer.get_build_config() or {}
        if shapes.get("input_shape") is not None:
            copy.build_from_config(shapes)
            copy_state(layer, copy)
    return copy


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
    """Gives a built copy what `layer` has: weights, states of random generators, statistics.

    Raises:
        ValueError: a copy with other variables.
    """
    variables, others = _variables(layer), _variables(copy)
    if len(variables) != len(others):
        raise ValueError(
            f"{layer.name} ({type(layer).__name__}) cannot be copied: of its {len(variables)} variables its copy has "
            f"{len(others)}; make all of them in build()"
        )
    for variable, other in zip(variables, others, strict=True):
        other.assign(tf.convert_to_tensor(variable))
    for part, other in _parts(layer, copy):
        if hasattr(part, "finalize_state") and not hasattr(part, "get_vocabulary") and _variables(part):
            other.finalize_state()  # of a Normalization or Discretization: from the variables to what is computed with


def _variables(layer: Any) -> list[Any]:
    # Among those of a lookup tf-keras has its table.
    return [variable for variable in getattr(layer, "variables", ()) if hasattr(variable, "dtype")]


def _copy_vocabulary(layer: Any, copy: Any) -> None:
    is_outer = any(hasattr(part, "get_vocabulary") for part in _children(layer).values())
    if is_outer or not hasattr(layer, "get_vocabulary") or layer.get_config().get("vocabulary") is not None:
        return  # TextVectorization's is that of the lookup in it; one that was given is in the configuration
    vocabulary = layer.get_vocabulary()
    weights = {}
    if getattr(layer, "output_mode", None) == "tf_idf":
        weights["idf_weights"] = np.asarray(layer.idf_weights)[: len(vocabulary)]
    copy.set_vocabulary(vocabulary, **weights)


def _parts(layer: Any, copy: Any) -> Iterator[tuple[Any, Any]]:
    """The layer and the layers in it, each with its copy, the inner ones first."""
    others = _children(copy)
    for key, child in _children(layer).items():
        if key in others:
            yield from _parts(child, others[key])
    yield layer, copy


def _children(layer: Any) -> dict[str, Any]:
    """The layers among a layer's attributes, wrappers' and cells' included."""
    found: dict[int, tuple[str, Any]] = {}
    for key, value in vars(layer).items():
        for i, item in enumerate(value if isinstance(value, list | tuple) else [value]):
            if isinstance(item, layers.Layer) and item is not layer:
                found.setdefault(id(item), (f"{key}/{i}", item))
    return dict(found.values())


def _live(layer: Any, key: str) -> Any:
    """What the layer holds under a key of its configuration, where that is a function or an object with no name."""
    if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda", "ClassMethod"):
        return None  # a TensorFlow function that tf-keras finds by its name
    value = getattr(layer, key, None)
    of_keras = (tf.keras.regularizers.Regularizer, tf.keras.constraints.Constraint, tf.keras.initializers.Initializer)
    is_function = inspect.isfunction(value) and not _is_known(value)
    is_object = isinstance(value, of_keras) and not type(value).__module__.split(".")[0].endswith("keras")
    return value if is_function or is_object else None


def _is_known(function: Any) -> bool:
    """Whether Keras finds the function by its name."""
    return function.__module__.split(".")[0] in ("keras", "tf_keras")


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
