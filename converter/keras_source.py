"""From a Keras model or a SavedModel to the TFLite graph in which our layers are whole. The only user of TensorFlow.

Everything goes through a SavedModel on disk, the one form that TensorFlow's converter takes from Keras 3 and tf-keras
alike, with a batch of 1: a free batch litters the graph with shape arithmetic.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ConversionError


def load_keras(path: Path) -> Any:
    """The Keras model in a `.keras` file. Raises ConversionError for anything else."""
    import tensorflow as tf
    from subbyte import keras_layers  # noqa: F401  registers the classes

    if not zipfile.is_zipfile(path):
        raise ConversionError(f"{path} is not a Keras model: a .keras file is written by model.save()")
    try:
        return tf.keras.models.load_model(path, compile=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ConversionError(
            f"cannot load {path}: {reason} (saved by {_keras_of(path)}, read by {_this_keras()})"
        ) from error


@dataclass(frozen=True)
class Source:
    """A model on its way.

    Attributes:
        tflite: TensorFlow's conversion, our layers whole; its outputs are the model's, then those of the taps.
        name: for messages.
        taps: (signature output, layer) of each activation quantizer.
        reference: the model in TensorFlow: inputs by name, [samples, ...] each, to outputs and taps by name; or None.
    """

    tflite: bytes
    name: str
    taps: tuple[tuple[str, str], ...] = ()
    reference: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None


def from_keras(model: Any) -> Source:
    """A built Keras model. Raises ConversionError, naming the layer to mend."""
    import tensorflow as tf
    from subbyte.keras_layers import markers

    check_stage(model.variables)
    specs = _input_specs(model)
    names: list[tuple[str, str]] = []

    def call(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        with markers.taps() as taps:
            outputs = model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
        if not isinstance(outputs, dict):
            outputs = {f"output_{i}": output for i, output in enumerate(tf.nest.flatten(outputs))}
        names[:] = [(f"tap_{i}", layer) for i, (layer, _) in enumerate(taps)]
        return outputs | {f"tap_{i}": output for i, (_, output) in enumerate(taps)}

    graph_call = tf.function(call, autograph=False, reduce_retracing=True)

    def reference(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = [tf.constant(inputs[spec.name], spec.dtype) for spec in specs]
        return {name: output.numpy() for name, output in graph_call(*tensors).items()}

    module = tf.Module()
    module.variables_of_model = [v if isinstance(v, tf.Variable) else v.value for v in model.variables]
    tflite = _convert(module, tf.function(call, autograph=False).get_concrete_function(*specs))
    return Source(tflite, model.name, tuple(names), reference)


def from_saved_model(path: Path) -> Source:
    """A SavedModel, through its `serving_default` signature. Raises ConversionError, naming the layer to mend."""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures["serving_default"]
    except (OSError, ValueError, KeyError) as error:
        raise ConversionError(f"cannot load {path}: {str(error).splitlines()[0]}") from error
    check_stage(signature.variables)
    specs = [
        _fixed(spec.shape, spec.dtype, name) for name, spec in sorted(signature.structured_input_signature[1].items())
    ]

    @tf.function(autograph=False)
    def serve(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return signature(**{spec.name: tensor for spec, tensor in zip(specs, inputs, strict=True)})

    def reference(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {spec.name: tf.constant(inputs[spec.name], spec.dtype) for spec in specs}
        return {name: output.numpy() for name, output in signature(**tensors).items()}

    module = tf.Module()
    module.loaded = loaded
    return Source(_convert(module, serve.get_concrete_function(*specs)), str(path), reference=reference)


def check_stage(variables: Any) -> None:
    """Raises ConversionError for a model that has not been through stage 2."""
    from subbyte.keras_layers import stages

    waiting = [(part, layer) for part, layer, flag in stages.stage_flags(variables) if float(flag.numpy()) < 0.5]
    if waiting:
        part, layer = waiting[0]
        others = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        raise ConversionError(
            f"layer {layer}{others} is still in stage 1 ({part.replace('_', ' ')} not quantized): train with "
            "TwoStage(second_stage_epochs=...), or call set_stage(model, 2)"
        )


def _input_specs(model: Any) -> list[Any]:
    import tensorflow as tf

    inputs = getattr(model, "inputs", None)
    if inputs:
        return [_fixed(x.shape, tf.as_dtype(x.dtype), x.name.split(":")[0]) for x in inputs]
    # A subclassed model knows what it was built on.
    config = (model.get_build_config() or {}) if model.built else {}
    shape = config.get("input_shape")
    if shape is None:
        raise ConversionError(f"{model.name} has no known input shape: call it on data before converting it")
    return [_fixed(tf.TensorShape(shape), tf.float32, "input_0")]


def _fixed(shape: Any, dtype: Any, name: str) -> Any:
    import tensorflow as tf

    shape = list(tf.TensorShape(shape))
    if None in shape[1:]:
        raise ConversionError(
            f"input {name} has a free dimension besides the batch, {tuple(shape)}: give it a fixed size"
        )
    return tf.TensorSpec([1, *shape[1:]], dtype, name=name)


def _convert(module: Any, concrete: Any) -> bytes:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": concrete})
        _drop_rounding(Path(folder) / "saved_model.pb")
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.allow_custom_ops = True
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            return bytes(converter.convert())
        except Exception as error:
            lines = [line for line in str(error).splitlines() if "error:" in line] or str(error).splitlines()
            raise ConversionError(f"TensorFlow's converter refuses the model: {lines[0].strip()}") from error


def _drop_rounding(path: Path) -> None:
    """Makes the rounding functions in a saved graph hand on what they get: the int8 tensor behind rounds by itself."""
    from subbyte.keras_layers import markers
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta_graph in saved.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            # Looking up a missing key would add it.
            if "_implements" in function.attr and function.attr["_implements"].func.name == markers.ROUNDING:
                del function.attr["_implements"]
                del function.node_def[:]
                for output in function.signature.output_arg:
                    function.ret[output.name] = function.signature.input_arg[0].name
    path.write_bytes(saved.SerializeToString(deterministic=True))


def _keras_of(path: Path) -> str:
    with zipfile.ZipFile(path) as archive, archive.open("metadata.json") as metadata:
        return f"Keras {json.load(metadata).get('keras_version', 'unknown')}"


def _this_keras() -> str:
    import tensorflow as tf

    version = getattr(tf.keras, "__version__", None)
    return f"Keras {version}" if version else "tf-keras"
