"""A float Keras model as a list of calls in the order of computation, nested models taken apart.

Read from `model.get_config()`, the form in which models are saved, so that nothing private of Keras is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

#: A tensor: the call that makes it, and which of its outputs it is.
Tensor = tuple[int, int]


@dataclass(frozen=True)
class Call:
    """One use of a layer.

    Attributes:
        layer: a Keras layer or operation; None for an input of the model.
        args, kwargs: of the call, nested; a tensor is a `Reference`.
        name: of the layer, with the names of the nested models around it where another layer has the same.
    """

    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors among the arguments, in order."""
        return [reference.tensor for reference in _references((self.args, self.kwargs))]

    def __call__(self, values: Mapping[Tensor, Any]) -> list[Any]:
        """The outputs of the layer on the values of its tensors, in inference."""
        return tf.nest.flatten(self.layer(*filled(self.args, values), **filled(self.kwargs, values)))


@dataclass(frozen=True)
class Reference:
    """Stands for a tensor among the arguments of a call."""

    tensor: Tensor


@dataclass(frozen=True)
class FloatGraph:
    """A model taken apart.

    Attributes:
        calls: in the order of computation; the inputs of the model first. A tensor's number is that of its call.
        outputs: the model's, nested as the model gives them; tensors are `Reference`s.
        inputs: the model's symbolic inputs, nested as the model takes them; of a single one, that.
    """

    calls: list[Call]
    outputs: Any
    inputs: Any

    @classmethod
    def of(cls, model: Any) -> FloatGraph:
        """Raises ValueError for what is no built Sequential or functional model."""
        if not (isinstance(model, tf.keras.Model) and _is_transparent(model)):
            name = getattr(model, "name", type(model).__name__)
            raise ValueError(
                f"{name} is no Sequential or functional Keras model: rebuild it with tf.keras.Input and tf.keras.Model"
            )
        if not model.built or not model.inputs:
            raise ValueError(f"{model.name} has no known input shape: give it a tf.keras.Input, or call it on data")
        reader = _Reader()
        structure = getattr(model, "input", model.inputs[0]) if len(model.inputs) > 1 else model.inputs[0]
        inputs = [reader.add(None, (x,), {}, x.name.split(":")[0]) for x in tf.nest.flatten(structure)]
        outputs = reader.read(model, inputs)
        return cls(reader.calls, outputs, structure)

    @property
    def output_tensors(self) -> list[Tensor]:
        return [reference.tensor for reference in _references(self.outputs)]

    def consumers(self) -> dict[Tensor, list[int]]:
        """The calls that read each tensor."""
        found: dict[Tensor, list[int]] = {}
        for number, call in enumerate(self.calls):
            for tensor in call.inputs:
                found.setdefault(tensor, []).append(number)
        return found

    def run(self, inputs: Sequence[Any]) -> Iterator[tuple[int, list[Any]]]:
        """(number of a call, its outputs) one after the other; values that no later call reads are let go."""
        last_reader = {tensor: numbers[-1] for tensor, numbers in self.consumers().items()}
        values: dict[Tensor, Any] = {}
        for number, call in enumerate(self.calls):
            outputs = [inputs[number]] if call.layer is None else call(values)
            yield number, outputs
            values |= {(number, i): output for i, output in enumerate(outputs)}
            for tensor in [tensor for tensor in values if last_reader.get(tensor, -1) <= number]:
                del values[tensor]


class _Reader:
    """Collects the calls of a model and of the models nested in it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._names: dict[str, Any] = {}

    def add(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Tensor:
        self.calls.append(Call(layer, args, kwargs, name))
        return len(self.calls) - 1, 0

    def read(self, model: Any, inputs: list[Tensor], scope: str = "") -> Any:
        """Adds the calls of `model` on `inputs`. Returns its outputs."""
        if isinstance(model, tf.keras.Sequential):
            x = Reference(inputs[0])
            for layer in model.layers:
                if not isinstance(layer, tf.keras.layers.InputLayer):
                    x = self._call(layer, (x,), {}, scope)
            return x
        return _Functional(self, model, inputs, scope).outputs

    def _call(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], scope: str) -> Any:
        """What a layer gives: references to its outputs, nested."""
        if isinstance(layer, tf.keras.Model) and _is_transparent(layer):
            inputs = [reference.tensor for reference in _references((args, kwargs))]
            return self.read(layer, inputs, f"{scope}{layer.name}_")
        name = layer.name
        if self._names.setdefault(name, layer) is not layer:
            name = scope + name
            self._names[name] = layer
        number, _ = self.add(layer, args, kwargs, name)
        return Reference((number, 0))


class _Functional:
    """The nodes of a functional model, called on given inputs; only what its outputs need."""

    def __init__(self, reader: _Reader, model: Any, inputs: list[Tensor], scope: str) -> None:
        config = model.get_config()
        self._reader, self._scope = reader, scope
        self._layers = {layer.name: layer for layer in getattr(model, "operations", model.layers)}
        self._nodes = {layer["name"]: layer["inbound_nodes"] for layer in config["layers"]}
        self._values: dict[tuple[str, int], Any] = {}
        taken = _tensors(config["input_layers"])
        for (name, node, _), tensor in zip(taken, inputs, strict=True):
            self._values[name, node] = Reference(tensor)
        self.outputs = _mapped(config["output_layers"], self._find)

    def _find(self, name: str, node: int, index: int) -> Any:
        """The tensor that the `node`-th use of a layer gives."""
        if (name, node) not in self._values:
            args, kwargs = self._arguments(self._nodes[name][node - self._first_node(name)])
            self._values[name, node] = self._reader._call(self._layers[name], args, kwargs, self._scope)
        value = self._values[name, node]
        flat = _references(value)
        if len(flat) > 1:  # the outputs of a nested model
            return flat[index]
        number, first = flat[0].tensor
        return Reference((number, first + index))

    def _first_node(self, name: str) -> int:
        """tf-keras counts the uses of a nested model from 1: its first node is its own."""
        is_model = isinstance(self._layers[name], tf.keras.Model)
        return int(is_model and not isinstance(self._nodes[name][0], dict))

    def _arguments(self, node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if isinstance(node, dict) and set(node) == {"args", "kwargs"}:  # Keras 3
            return tuple(_mapped(node["args"], self._find)), _mapped(node["kwargs"], self._find)
        # tf-keras: the first argument, a tensor or a list of them; the keywords stand behind the first.
        rows = [node] if _is_row(node[:3]) else node
        keywords: dict[str, Any] = next((row[3] for row in rows if len(row) > 3), {})
        first = [row[2] if row[0] == "_CONSTANT_VALUE" else self._find(*row[:3]) for row in rows]
        return (first[0] if len(first) == 1 else first,), _mapped(keywords, self._find, self._nodes)


def _is_transparent(model: Any) -> bool:
    return isinstance(model, tf.keras.Sequential) or "input_layers" in (model.get_config() or {})


def _is_row(value: Any, names: Any = None) -> bool:
    """[layer, node, tensor], as tf-keras writes a tensor and both write the ends of a model."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and isinstance(value[0], str)
        and all(isinstance(number, int) and not isinstance(number, bool) for number in value[1:])
        and (names is None or value[0] in names)
    )


def _mapped(value: Any, find: Callable[[str, int, int], Any], names: Any = None) -> Any:
    """`value` with what stands for a tensor in it replaced."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return find(*value["config"]["keras_history"])
    if _is_row(value, names):
        return find(*value)
    if isinstance(value, dict):
        if "class_name" in value and "config" in value:
            return tf.keras.utils.deserialize_keras_object(value)
        return {key: _mapped(item, find, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, find, names) for item in value)
    return value


def _tensors(value: Any) -> list[tuple[str, int, int]]:
    """The rows in a nested value, in order."""
    found: list[tuple[str, int, int]] = []
    _mapped(value, lambda *row: found.append(row))
    return found


def _references(value: Any) -> list[Reference]:
    if isinstance(value, Reference):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [reference for item in value for reference in _references(item)]
    return []


def filled(value: Any, values: Mapping[Tensor, Any]) -> Any:
    """`value`, nested, with each reference replaced by what `values` has for its tensor."""
    if isinstance(value, Reference):
        return values[value.tensor]
    if isinstance(value, dict):
        return {key: filled(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(filled(item, values) for item in value)
    return value
