"""What a layer keeps, its weights and everything else: plain variables, states of cells and of random generators."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

_VALUES = (int, float, str, np.ndarray, np.generic)


def parts(layer: Any) -> Iterator[tuple[str, Any]]:
    """(path, layer) of the layers in a layer at any depth, wrappers' and cells' included, and at last of itself."""
    seen = {id(layer)}

    def inside(part: Any, path: str) -> Iterator[tuple[str, Any]]:
        for key, item in _attributes(part):
            if isinstance(item, tf.keras.layers.Layer) and id(item) not in seen:
                seen.add(id(item))
                yield from inside(item, f"{path}{key}/")
                yield f"{path}{key}", item

    yield from inside(layer, "")
    yield "", layer


def variables(layer: Any) -> dict[str, Any]:
    """The variables that a layer and the layers in it keep, by path: those that Keras lists, then all others."""
    # Among those of a lookup tf-keras has its table.
    listed = [variable for variable in getattr(layer, "variables", ()) if hasattr(variable, "dtype")]
    found = {f"variables/{i}": variable for i, variable in enumerate(listed)}
    seen = set(map(id, listed))
    for path, part in parts(layer):
        for key, item in _attributes(part):
            for i, variable in enumerate(_variables_of(item)):
                if id(variable) not in seen:
                    seen.add(id(variable))
                    found[f"{path}/{key}/{i}"] = variable
    return found


def values(layer: Any) -> dict[str, Any]:
    """Numbers, texts and arrays among the attributes of a layer that its class is not made from."""
    other = {"built", *inspect.signature(type(layer).__init__).parameters}
    return {
        key: value
        for key, value in vars(layer).items()
        if not key.startswith("_") and key not in other and isinstance(value, _VALUES)
    }


@contextmanager
def kept(layer: Any) -> Iterator[None]:
    """Gives a layer back what it kept, weights aside, as it was before: it may be called without a trace."""
    trained = set(map(id, getattr(layer, "trainable_variables", ())))
    before = [
        (variable, tf.identity(variable)) for variable in variables(layer).values() if id(variable) not in trained
    ]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def _attributes(layer: Any) -> Iterator[tuple[str, Any]]:
    """(key, item) of what stands in a layer's attributes, lists and dictionaries among them taken apart."""
    for key, value in list(vars(layer).items()):
        yield from _items(key, value)


def _items(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name in value:
            yield from _items(f"{key}/{name}", value[name])
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _items(f"{key}/{i}", item)
    else:
        yield key, value


def _variables_of(item: Any) -> list[Any]:
    """An attribute that is a variable, or the variables of one that is a random generator or a module."""
    if isinstance(item, tf.keras.layers.Layer):
        return []
    if _is_variable(item):
        return [item]
    if isinstance(item, tf.random.Generator):
        return [item.state]
    if isinstance(item, tf.Module):
        return list(item.variables)
    # tf-keras has a random generator inside one of its own.
    inner = getattr(item, "__dict__", {}).values()
    return [value.state for value in inner if isinstance(value, tf.random.Generator)]


def _is_variable(item: Any) -> bool:
    return hasattr(item, "assign") and hasattr(item, "dtype")
