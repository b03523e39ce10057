"""Float layers cut into those that do one thing: an activation given as an argument becomes a call of its own."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .cloning import clone, copy_state
from .float_graph import Call, FloatGraph, Reference, Tensor, filled
from .layer_kinds import QUANTIZED, SEPARABLE, function_name

layers = tf.keras.layers


def split(graph: FloatGraph) -> FloatGraph:
    """The same model with activations and both halves of separable convolutions as calls of their own."""
    calls: list[Call] = []
    made: dict[Tensor, Reference] = {}
    parts: dict[int, list[tuple[str, Any]]] = {}
    read: dict[int, set[Tensor]] = {}
    for tensor in (*graph.input_tensors, *graph.consumers(), *graph.output_tensors):
        read.setdefault(tensor[0], set()).add(tensor)
    for number, call in enumerate(graph.calls):
        args, kwargs = filled((call.args, call.kwargs), made)
        if id(call.layer) not in parts:
            parts[id(call.layer)] = _parts(call.layer)
        first, *rest = parts[id(call.layer)]
        calls.append(Call(first[1], args, kwargs, call.name + first[0]))
        for suffix, layer in rest:
            calls.append(Call(layer, (Reference((len(calls) - 1, 0)),), {}, call.name + suffix))
        made |= {tensor: Reference((len(calls) - 1, tensor[1])) for tensor in read.get(number, ())}
    return FloatGraph(calls, filled(graph.outputs, made), filled(graph.inputs, made), graph.output_names)


def _parts(layer: Any) -> list[tuple[str, Any]]:
    """(suffix of the name, layer) in the order of computation."""
    if type(layer) in SEPARABLE:
        halves = _halves(layer)
    elif type(layer) in QUANTIZED and function_name(layer.activation) != "linear":
        halves = [("", without_activation(layer))]
    else:
        return [("", layer)]
    name = function_name(layer.activation)
    if name != "linear":
        behind = layer.activation if isinstance(layer.activation, layers.Layer) else layers.Activation(layer.activation)
        halves.append((f"_{name if name.isidentifier() else 'activation'}", behind))
    return halves


def without_activation(layer: Any) -> Any:
    """A copy of a built layer, its activation left out."""
    copy = clone(layer, layer.name, activation="linear")
    copy.build(layer.get_build_config()["input_shape"])
    copy_state(layer, copy)
    return copy


def _halves(layer: Any) -> list[tuple[str, Any]]:
    """A separable convolution as a depthwise and a pointwise one."""
    config, shape = layer.get_config(), layer.get_build_config()["input_shape"]
    window = ("kernel_size", "strides", "padding", "depth_multiplier", "data_format", "dilation_rate")
    depthwise_class, pointwise_class = SEPARABLE[type(layer)]
    depthwise = depthwise_class(
        **{key: config[key] for key in window},
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
    )
    depthwise.build(shape)
    pointwise = pointwise_class(
        config["filters"],
        1,
        data_format=config["data_format"],
        use_bias=config["use_bias"],
        kernel_regularizer=layer.pointwise_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_regularizer=layer.bias_regularizer,
        bias_constraint=layer.bias_constraint,
    )
    pointwise.build(depthwise.compute_output_shape(shape))
    first, *second = layer.get_weights()
    depthwise.set_weights([first])
    pointwise.set_weights(second)
    return [("_depthwise", depthwise), ("_pointwise", pointwise)]
