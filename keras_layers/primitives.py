"""Float layers cut into those that do one thing: an activation given as an argument becomes a call of its own."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from .float_graph import Call, FloatGraph, Reference, Tensor, filled

layers = tf.keras.layers

_WITH_ACTIVATION = (
    layers.Dense, layers.Conv1D, layers.Conv2D, layers.DepthwiseConv1D, layers.DepthwiseConv2D,
)  # fmt: skip
_DEPTHWISE = {layers.SeparableConv1D: layers.DepthwiseConv1D, layers.SeparableConv2D: layers.DepthwiseConv2D}
_POINTWISE = {layers.SeparableConv1D: layers.Conv1D, layers.SeparableConv2D: layers.Conv2D}


def split(graph: FloatGraph) -> FloatGraph:
    """The same model with activations and both halves of separable convolutions as calls of their own."""
    calls: list[Call] = []
    made: dict[Tensor, Reference] = {}
    parts: dict[int, list[tuple[str, Any]]] = {}
    read = {*graph.consumers(), *graph.output_tensors}
    for number, call in enumerate(graph.calls):
        args, kwargs = filled((call.args, call.kwargs), made)
        if id(call.layer) not in parts:
            parts[id(call.layer)] = _parts(call.layer)
        first, *rest = parts[id(call.layer)]
        calls.append(Call(first[1], args, kwargs, call.name + first[0]))
        for suffix, layer in rest:
            calls.append(Call(layer, (Reference((len(calls) - 1, 0)),), {}, call.name + suffix))
        made |= {tensor: Reference((len(calls) - 1, tensor[1])) for tensor in read if tensor[0] == number}
    return FloatGraph(calls, filled(graph.outputs, made), graph.inputs)


def _parts(layer: Any) -> list[tuple[str, Any]]:
    """(suffix of the name, layer) in the order of computation."""
    if type(layer) in _DEPTHWISE:
        halves = _halves(layer)
    elif type(layer) in _WITH_ACTIVATION and _name_of(layer.activation) != "linear":
        halves = [("", without_activation(layer))]
    else:
        return [("", layer)]
    if _name_of(layer.activation) != "linear":
        behind = layer.activation if isinstance(layer.activation, layers.Layer) else layers.Activation(layer.activation)
        halves.append((f"_{_name_of(layer.activation)}", behind))
    return halves


def without_activation(layer: Any) -> Any:
    """A copy of a built layer, its activation left out."""
    copy = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    copy.build(layer.get_build_config()["input_shape"])
    copy.set_weights(layer.get_weights())
    return copy


def _halves(layer: Any) -> list[tuple[str, Any]]:
    """A separable convolution as a depthwise and a pointwise one."""
    config, shape = layer.get_config(), layer.get_build_config()["input_shape"]
    window = ("kernel_size", "strides", "padding", "depth_multiplier", "data_format", "dilation_rate")
    depthwise = _DEPTHWISE[type(layer)](
        **{key: config[key] for key in window},
        use_bias=False,
        depthwise_regularizer=config["depthwise_regularizer"],
        depthwise_constraint=config["depthwise_constraint"],
    )
    depthwise.build(shape)
    pointwise = _POINTWISE[type(layer)](
        config["filters"],
        1,
        data_format=config["data_format"],
        use_bias=config["use_bias"],
        kernel_regularizer=config["pointwise_regularizer"],
        kernel_constraint=config["pointwise_constraint"],
        bias_regularizer=config["bias_regularizer"],
    )
    pointwise.build(depthwise.compute_output_shape(shape))
    first, *second = layer.get_weights()
    depthwise.set_weights([first])
    pointwise.set_weights(second)
    return [("_depthwise", depthwise), ("_pointwise", pointwise)]


def clone(layer: Any, name: str) -> Any:
    """An unbuilt layer (or operation) like `layer`."""
    return type(layer).from_config({**layer.get_config(), "name": name})


def activation_name(layer: Any) -> str | None:
    """Of a layer that applies a function: its name; None for other layers."""
    if isinstance(layer, layers.Softmax):
        return "softmax"
    return _name_of(layer.activation) if isinstance(layer, layers.Activation) else None


def relu_bound(layer: Any) -> float | None:
    """The upper bound of a ReLU, infinity where it has none; None for another layer."""
    if isinstance(layer, layers.ReLU):
        slope, threshold = float(layer.negative_slope), float(layer.threshold)
        if slope or threshold:
            return None
        return math.inf if layer.max_value is None else float(layer.max_value)
    return {"relu": math.inf, "relu6": 6.0}.get(activation_name(layer) or "")


def _name_of(activation: Any) -> str:
    if isinstance(activation, layers.Layer):
        return activation.name
    return str(getattr(activation, "__name__", "linear" if activation is None else type(activation).__name__))
