"""What the constructor of a layer takes."""

from __future__ import annotations

import inspect


def parameters(layer: type) -> dict[str, inspect.Parameter]:
    """By name, without self. Not those of the class: until Python 3.11.3 they were of Keras's own `__new__`."""
    named = dict(inspect.signature(layer.__init__).parameters)
    del named["self"]
    return named
