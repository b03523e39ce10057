"""Real inputs of a model in the forms in which people have them, as one array for each input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def samples_by_input(
    given: Any,
    ranks: Mapping[str, int],
    most: int,
    keys: Mapping[str, str] | None = None,
    what: str = "the calibration",
) -> dict[str, np.ndarray]:
    """Arrays by the names of the inputs, [samples, ...] each.

    An array, a tensor, or a list or dictionary of them hold all samples. A `tf.data.Dataset`, batched or not, a Keras
    `Sequence`, a generator, or a function that makes one give them piece by piece; a piece is an array, a list or a
    dictionary, of a batch or of one sample. As in `fit`, a tuple is (inputs, targets) or (inputs, targets, weights).

    Args:
        given: in one of these forms; a dictionary has the inputs' names, an only array any name.
        ranks: names of the inputs, in the order of a list, and their number of dimensions, samples included.
        most: so many samples are read of what comes in pieces, which need not end.
        keys: other names of inputs.
        what: it is, for messages.

    Raises:
        ValueError: other inputs than the model takes, or pieces that cannot be joined.
    """
    if callable(given) and not hasattr(given, "shape"):
        given = given()
    if isinstance(given, Mapping | list | tuple) or hasattr(given, "shape"):
        return {name: np.asarray(value) for name, value in _by_name(given, ranks, keys or {}, what).items()}
    if not isinstance(given, Iterable) and not hasattr(given, "__getitem__"):
        raise ValueError(f"{type(given).__name__} holds no inputs: give an array, or a dictionary by input name")
    return _joined(_pieces(given), ranks, most, keys or {}, what)


def _joined(
    given: Iterable[Any], ranks: Mapping[str, int], most: int, keys: Mapping[str, str], what: str
) -> dict[str, np.ndarray]:
    """The first `most` samples of what comes in pieces; see `samples_by_input`."""
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in ranks}
    count = 0
    for piece in given:
        inputs = piece[0] if isinstance(piece, tuple) else piece
        sizes = set()
        for name, value in _by_name(inputs, ranks, keys, what).items():
            array = np.asarray(value)
            array = array[None] if array.ndim == ranks[name] - 1 else array
            pieces[name].append(array)
            sizes.add(len(array) if array.ndim else 0)
        count += max(sizes)
        if count >= most:
            break
    if count == 0:
        raise ValueError(f"{what} is empty: give some hundred samples")
    try:
        return {name: np.concatenate(arrays)[:most] for name, arrays in pieces.items()}
    except ValueError as error:
        raise ValueError(f"the pieces of {what} cannot be joined: {error}") from error


def _pieces(given: Any) -> Iterator[Any]:
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):  # a Sequence of Keras has no end of its own
        return (given[i] for i in range(len(given)))
    return iter(given)


def _by_name(given: Any, ranks: Mapping[str, int], keys: Mapping[str, str], what: str) -> dict[str, Any]:
    names = list(ranks)
    if isinstance(given, Mapping):
        named = {keys.get(key, key): value for key, value in given.items()}
        missing = [name for name in names if name not in named]
        if missing and len(names) == len(named) == 1:
            return {names[0]: next(iter(named.values()))}
        if missing:
            raise ValueError(f"{what} has no array {missing[0]!r}: it holds {', '.join(map(str, given)) or 'nothing'}")
        return {name: named[name] for name in names}
    arrays: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
    if len(arrays) != len(names):
        raise ValueError(f"{what} has {len(arrays)} arrays, the model takes {len(names)} inputs")
    return dict(zip(names, arrays, strict=True))
