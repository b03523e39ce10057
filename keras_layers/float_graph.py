"""A float Keras model as a list of calls in the order of computation, nested models taken apart.

Read from `model.get_config()`, the form in which models are saved, so that nothing private of Keras is touched.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from .layer_state import kept

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
        inputs: the model's, nested as the model takes them; `Reference`s, too.
        output_names: of the outputs, flattened as `tf.nest` does; what losses and metrics are keyed by.
    """

    calls: list[Call]
    outputs: Any
    inputs: Any
    output_names: tuple[str, ...]

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
        if isinstance(model, tf.keras.Sequential):
            structure, names = model.inputs[0], [model.inputs[0].name.split(":")[0]]
        else:
            structure = model.input
            names = [row.layer for row in tf.nest.flatten(_mapped(model.get_config()["input_layers"], _Row))]
        symbols = tf.nest.flatten(structure)
        inputs = [reader.add(None, (x,), {}, name) for x, name in zip(symbols, names, strict=True)]
        references = [Reference((number, 0)) for number in inputs]
        outputs = reader.read(model, references)
        # A Sequential model of Keras 3 has no names of outputs.
        named = getattr(model, "output_names", None) or [model.layers[-1].name]
        return cls(reader.calls, outputs, tf.nest.pack_sequence_as(structure, references), tuple(named))

    @property
    def input_calls(self) -> list[Call]:
        """The inputs, in the order of `run`'s and of the model's own list or, of a dictionary, its sorted keys."""
        return [call for call in self.calls if call.layer is None]

    @property
    def batch_size(self) -> int | None:
        """The batch that the model is built for; None where it is free."""
        sizes = [call.args[0].shape[0] for call in self.input_calls]
        return next((int(size) for size in sizes if size is not None), None)

    @property
    def input_tensors(self) -> list[Tensor]:
        return [reference.tensor for reference in _references(self.inputs)]

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
        """(number of a call, its outputs) one after the other; values that no later call reads are let go.

        What layers keep from call to call is afterwards what it was.

        Args:
            inputs: one for each of `input_calls`, [samples, ...]; for a fixed batch a multiple of it.
        """
        dying: dict[int, list[Tensor]] = {}
        for tensor, numbers in self.consumers().items():
            dying.setdefault(numbers[-1], []).append(tensor)
        given, batch_size = iter(inputs), self.batch_size
        values: dict[Tensor, Any] = {}
        for number, call in enumerate(self.calls):
            if call.layer is None:
                outputs = [next(given)]
            else:
                with kept(call.layer):
                    outputs = call(values) if batch_size is None else _in_batches(call, values, batch_size)
            yield number, outputs
            values |= {(number, i): output for i, output in enumerate(outputs)}
            for tensor in dying.get(number, []):
                del values[tensor]


def _in_batches(call: Call, values: Mapping[Tensor, Any], size: int) -> list[Any]:
    """`call` on `size` samples at a time, in order, as a layer with a state of that batch wants it."""
    samples = max((len(values[tensor]) for tensor in call.inputs if len(values[tensor].shape)), default=size)
    batches = []
    for start in range(0, samples, size):
        part = {
            tensor: values[tensor][start : start + size]
            if len(values[tensor].shape) and len(values[tensor]) == samples
            else values[tensor]
            for tensor in call.inputs
        }
        batches.append(call(part))
    if len(batches) == 1:
        return batches[0]
    return [tf.concat(column, 0) if len(column[0].shape) else column[0] for column in zip(*batches, strict=True)]


class _Reader:
    """Collects the calls of a model and of the models nested in it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._names: dict[str, Any] = {}
        #: What `training` was in the call of the nested model that is read.
        self._training: bool | None = None
        #: Input of a nested model, and what follows from it sample by sample, to the mask that it is called with.
        self._masks: dict[Reference, Reference] = {}

    def add(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> int:
        self.calls.append(Call(layer, args, kwargs, name))
        return len(self.calls) - 1

    def read(self, model: Any, given: Any, scope: str = "") -> Any:
        """Adds the calls of `model` on what it is given, nested. Returns its outputs."""
        if isinstance(model, tf.keras.Sequential):
            x = _references(given)[0]
            for layer in model.layers:
                if not isinstance(layer, tf.keras.layers.InputLayer):
                    x = self.call(layer, (x,), {}, scope)
            return x
        return _Functional(self, model, given, scope).outputs

    def call(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], scope: str) -> Any:
        """What a layer gives: references to its outputs, nested."""
        if isinstance(layer, tf.keras.Model) and _is_transparent(layer):
            return self._nested(layer, args, kwargs, scope)
        name = layer.name
        if self._names.setdefault(name, layer) is not layer:
            name = scope + name
            self._names[name] = layer
        if self._training is not None and _takes(layer, "training") and (_IS_KERAS_3 or "training" not in kwargs):
            kwargs = {**kwargs, "training": self._training}
        mask = self._masks.get(args[0]) if args and isinstance(args[0], Reference) else None
        if mask is not None and kwargs.get("mask") is None and _takes(layer, "mask"):
            kwargs = {**kwargs, "mask": mask}
        output = Reference((self.add(layer, args, kwargs, name), 0))
        if mask is not None and _hands_on_mask(layer):
            self._masks[output] = mask
        return output

    def _nested(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], scope: str) -> Any:
        rest = dict(kwargs)
        given = args[0] if args else rest.pop("inputs")
        training = rest.pop("training", None)
        mask = rest.pop("mask", args[2] if len(args) > 2 else None)
        self._masks |= zip(_references(given), _references(mask), strict=False)
        around = self._training
        if training is not None and (around is None or not _IS_KERAS_3):
            self._training = training
        try:
            return self.read(model, given, f"{scope}{model.name}_")
        finally:
            self._training = around


@dataclass(frozen=True)
class _Row:
    """A tensor in a config: a layer, which of its uses, which of the outputs."""

    layer: str
    node: int
    index: int


class _Functional:
    """The nodes of a functional model, called on given inputs; only what its outputs need."""

    def __init__(self, reader: _Reader, model: Any, given: Any, scope: str) -> None:
        config = model.get_config()
        self._reader, self._scope = reader, scope
        self._layers = {layer.name: layer for layer in getattr(model, "operations", model.layers)}
        self._nodes = {layer["name"]: layer["inbound_nodes"] for layer in config["layers"]}
        self._values: dict[tuple[str, int], Any] = {}
        taken = _mapped(config["input_layers"], _Row)
        for row, reference in zip(tf.nest.flatten(taken), _in_order(given, taken), strict=True):
            self._values[row.layer, row.node] = reference
        self._compute(config["output_layers"])
        self.outputs = _mapped(config["output_layers"], self._find)

    def _compute(self, outputs: Any) -> None:
        """Calls what the outputs need, depth first; without recursion, since models are deep."""
        first = self._first_nodes(outputs)
        waiting = [(row.layer, row.node) for row in _rows(outputs)[::-1]]
        while waiting:
            name, node = waiting[-1]
            if (name, node) in self._values:
                waiting.pop()
                continue
            inbound = self._nodes[name][node - first.get(name, 0)]
            found: list[_Row] = []
            self._arguments(inbound, lambda *row, found=found: found.append(_Row(*row)))
            missing = [key for row in found if (key := (row.layer, row.node)) not in self._values]
            waiting.extend(missing[::-1])
            if not missing:
                args, kwargs = self._arguments(inbound, self._find)
                self._values[name, node] = self._reader.call(self._layers[name], args, kwargs, self._scope)

    def _find(self, name: str, node: int, index: int) -> Any:
        """The tensor that the `node`-th use of a layer gives."""
        flat = _references(self._values[name, node])
        if len(flat) > 1:  # the outputs of a nested model
            return flat[index]
        number, first = flat[0].tensor
        return Reference((number, first + index))

    def _first_nodes(self, outputs: Any) -> dict[str, int]:
        """The number of the first use of each nested model: from 1 on where the model's own node counts."""
        models = {name for name, layer in self._layers.items() if isinstance(layer, tf.keras.Model)}
        if not models:
            return {}
        found = _rows(outputs)
        for node in (node for nodes in self._nodes.values() for node in nodes):
            self._arguments(node, lambda *row: found.append(_Row(*row)))
        return {name: min((row.node for row in found if row.layer == name), default=0) for name in models}

    def _arguments(self, node: Any, find: Callable[[str, int, int], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if _is_keras_3_node(node):
            return tuple(_mapped(node["args"], find)), _mapped(node["kwargs"], find)
        # tf-keras: the first argument, nested, with the keywords behind each tensor in it.
        keywords: dict[str, Any] = {}

        def first(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: first(item) for key, item in value.items()}
            if not (value and isinstance(value[0], str)):
                return [first(item) for item in value]
            if len(value) > 3:
                keywords.update(value[3])
            return value[2] if value[0] == "_CONSTANT_VALUE" else find(*value[:3])

        argument = first(node)
        if isinstance(argument, list) and len(argument) == 1:
            argument = argument[0]
        return (argument,), _mapped(keywords, find, self._nodes)


#: Keras 3 lets what a model is called with win over what a layer in it was; tf-keras the other way round.
_IS_KERAS_3 = hasattr(tf.keras, "ops")


def _takes(layer: Any, keyword: str) -> bool:
    return keyword in inspect.signature(layer.call).parameters


def _hands_on_mask(layer: Any) -> bool:
    is_plain = getattr(type(layer), "compute_mask", None) is tf.keras.layers.Layer.compute_mask
    return getattr(layer, "supports_masking", False) and (is_plain or getattr(layer, "return_sequences", False))


def _is_keras_3_node(node: Any) -> bool:
    return isinstance(node, dict) and set(node) == {"args", "kwargs"}


def _in_order(given: Any, taken: Any) -> list[Any]:
    """What a model is given, in the order of its inputs flattened: by key, by the inputs' names, or as it stands."""
    if isinstance(given, dict) and isinstance(taken, dict):
        return [given[key] for key in sorted(taken)]
    if isinstance(given, dict):
        return [given[row.layer] for row in tf.nest.flatten(taken)]
    return list(tf.nest.flatten(given))


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


def _rows(value: Any) -> list[_Row]:
    """The tensors in a nested value of a config, in order."""
    return [row for row in tf.nest.flatten(_mapped(value, _Row)) if isinstance(row, _Row)]


def _references(value: Any) -> list[Reference]:
    """The references in a nested value, in the order of `tf.nest`, which is that of Keras."""
    return [item for item in tf.nest.flatten(value) if isinstance(item, Reference)]


def filled(value: Any, values: Mapping[Tensor, Any]) -> Any:
    """`value`, nested, with each reference replaced by what `values` has for its tensor."""
    if isinstance(value, Reference):
        return values[value.tensor]
    if isinstance(value, dict):
        return {key: filled(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(filled(item, values) for item in value)
    return value
