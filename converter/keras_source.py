"""From a Keras model or a SavedModel to the TFLite graph in which our layers are whole. The only user of TensorFlow.

Everything goes through a SavedModel on disk, the one form that TensorFlow's converter takes from Keras 3 and tf-keras
alike, with a batch of 1: a free batch litters the graph with shape arithmetic.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from subbyte.schemas import ROUNDING

from .errors import ConversionError, one_line
from .graph import Graph
from .layer_names import layer_name
from .source import Source

#: Custom ops of LiteRT that have the names of TensorFlow's.
_AUDIO_OPS = ("AudioSpectrogram", "Mfcc")


def load_keras(path: Path) -> Any:
    """The Keras model in a `.keras` file. Raises ConversionError for anything else."""
    import tensorflow as tf

    from subbyte.keras_layers import tfmot_kinds  # the package registers its classes

    if not zipfile.is_zipfile(path):
        raise ConversionError(f"{path} is not a Keras model: a .keras file is written by model.save()")
    _check_version(path)
    try:
        return tf.keras.models.load_model(path, compile=False)
    except Exception as error:
        wrapped = tfmot_kinds.mend_of(_config_of(path))
        if wrapped is not None:
            raise ConversionError(f"{path} is {wrapped[0]}: {wrapped[1]}") from error
        own = re.search(r"(?:Could not locate (?:class|function)|Unknown \w+:) '?(?:\w+>)?(\w+)", str(error))
        if own is not None:
            raise ConversionError(
                f"{path} uses {own[1]}, which this command does not know: export the model as a SavedModel and convert "
                "that, or load it in Python with custom_objects and give it to subbyte.converter.convert"
            ) from error
        raise ConversionError(
            f"cannot load {path}: {one_line(error)} (saved by {_keras_of(path)}, read by {_this_keras()})"
        ) from error


def _check_version(path: Path) -> None:
    """Raises ConversionError for a file of the other Keras, whose errors are pages long."""
    saved, running = _keras_of(path), _this_keras()
    is_old = {version: version.startswith(("Keras 2.", "tf-keras")) for version in (saved, running)}
    if saved.startswith("Keras") and is_old[saved] != is_old[running]:
        mend = "set TF_USE_LEGACY_KERAS=1 to use tf-keras" if is_old[saved] else "leave out TF_USE_LEGACY_KERAS=1"
        raise ConversionError(f"{path} was saved by {saved}, and this is {running}: {mend}")


def from_keras(model: Any) -> Source:
    """A built Keras model. Raises ConversionError, naming the layer to mend."""
    import tensorflow as tf

    from subbyte.keras_layers import markers

    if not isinstance(model, tf.keras.Model):
        raise ConversionError(f"{type(model).__name__} is no model of {_this_keras()}, nor the path of a file")
    specs = _input_specs(model)
    check_stage(model.variables)
    structure = _input_structure(model)
    names: list[tuple[str, str]] = []
    constants: list[list[np.ndarray]] = []

    def call(converts: bool, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        with markers.tracing(converts) as trace:
            packed = inputs[0] if structure is None else tf.nest.pack_sequence_as(structure, list(inputs))
            outputs = model(packed, training=False)
        if not isinstance(outputs, dict):
            outputs = {f"output_{i}": output for i, output in enumerate(tf.nest.flatten(outputs))}
        # What a loop or another function computes cannot be seen from here.
        here = tf.compat.v1.get_default_graph()
        seen = [(layer, output) for layer, output in trace.taps if output.graph is here]
        if converts:
            names[:] = [(f"tap_{i}", layer) for i, (layer, _) in enumerate(seen)]
            constants[:] = trace.constants
        return outputs | {f"tap_{i}": output for i, (_, output) in enumerate(seen)}

    graph_call = tf.function(functools.partial(call, False), autograph=False, reduce_retracing=True)

    def reference(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = [tf.constant(inputs[spec.name], spec.dtype) for spec in specs]
        return {name: output.numpy() for name, output in graph_call(*tensors).items()}

    concrete = _traced(model, functools.partial(call, True), specs)
    return Source(
        _convert(_resources(model, concrete), concrete),
        model.name,
        tuple(names),
        _in_batches(reference, 256),
        layer_names=tuple(_layer_names(model)),
        constants=tuple(constants),
    )


def from_float_keras(model: Any, bits: int, first_last_bits: int, calibration: Any) -> Source:
    """A float Keras model, quantized on real inputs. Raises ConversionError, naming what to mend."""
    import tensorflow as tf

    from subbyte import keras_layers as ql
    from subbyte.keras_layers import stages

    if stages.stage_flags(getattr(model, "variables", ())):
        raise ConversionError(
            f"{model.name} has subbyte layers: --calibration is for float models; convert it without --bits"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # its lines are told as notes
            made = ql.quantize_post_training(model, calibration, ql.Recipe(bits, first_last_bits=first_last_bits))
    except ValueError as error:
        raise ConversionError(one_line(error)) from error
    except (TypeError, NotImplementedError, tf.errors.OpError) as error:  # of the model's own layers
        raise ConversionError(f"{model.name} cannot be quantized: {one_line(error)}") from error
    floating = functools.partial(float_tflite, model)
    return dataclasses.replace(from_keras(made.model), post_training=made, floating=floating)


def float_tflite(model: Any) -> bytes:
    """A float Keras model as the stock interpreter runs it, nothing quantized."""
    import tensorflow as tf

    structure = _input_structure(model)

    def call(*inputs: tf.Tensor) -> Any:
        return model(
            inputs[0] if structure is None else tf.nest.pack_sequence_as(structure, list(inputs)), training=False
        )

    concrete = _traced(model, call, _input_specs(model))
    return _convert(_resources(model, concrete), concrete, [])


def _traced(model: Any, call: Callable[..., Any], specs: list[Any]) -> Any:
    """`call` as a concrete function of tensors of these specs. Raises ConversionError where the model cannot run."""
    import tensorflow as tf

    try:
        return tf.function(call, autograph=False).get_concrete_function(*specs)
    except Exception as error:  # whatever the model's layers raise
        raise ConversionError(f"TensorFlow cannot trace {model.name}: {one_line(error)}") from error


def from_saved_model(path: Path) -> Source:
    """A SavedModel, through its `serving_default` signature. Raises ConversionError, naming the layer to mend."""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # a damaged file fails in any way
        raise ConversionError(f"cannot load {path}: {one_line(error)}") from error
    if "serving_default" not in loaded.signatures:
        raise ConversionError(f"{path} has no signature serving_default: save the model with model.export()")
    signature = loaded.signatures["serving_default"]
    check_stage(signature.variables)
    taken = sorted(signature.structured_input_signature[1].items())
    batches = {spec.shape[0] for _, spec in taken if spec.shape.rank}
    if batches - {None, 1}:
        raise ConversionError(f"{path} takes batches of {max(batches - {None})} alone: export it with a free batch")
    specs = [_fixed(spec.shape, spec.dtype, name) for name, spec in taken]

    @tf.function(autograph=False)
    def serve(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return signature(**{spec.name: tensor for spec, tensor in zip(specs, inputs, strict=True)})

    def reference(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {spec.name: tf.constant(inputs[spec.name], spec.dtype) for spec in specs}
        return {name: output.numpy() for name, output in signature(**tensors).items()}

    module = tf.Module()
    module.loaded = loaded
    tflite = _convert(module, serve.get_concrete_function(*specs))
    return Source(tflite, str(path), reference=_in_batches(reference, 1 if 1 in batches else 256))


def check_stage(variables: Any) -> None:
    """Raises ConversionError for a model that has not been through stage 2, or has ranges that have seen no data."""
    from subbyte.keras_layers import activations, stages

    waiting = [(part, layer) for part, layer, flag in stages.stage_flags(variables) if float(flag.numpy()) < 0.5]
    if waiting:
        part, layer = waiting[0]
        others = f" and {len(waiting) - 1} more are" if len(waiting) > 1 else " is"
        raise ConversionError(
            f"layer {layer}{others} still in stage 1 ({part.replace('_', ' ')} not quantized): train with "
            "TwoStage(second_stage_epochs=...), or call set_stage(model, 2)"
        )
    unseen = activations.unseen_ranges(variables)
    if unseen:
        raise ConversionError(
            f"layer {unseen[0]} has seen no data, so that its range is unknown: train the model, or give "
            "quantize_model a calibration"
        )


def _layer_names(layer: Any) -> Iterator[str]:
    """Names of the layers in a model, at any depth."""
    for inner in (*getattr(layer, "layers", ()), *filter(None, [getattr(layer, "layer", None)])):
        yield inner.name
        yield from _layer_names(inner)


def _resources(model: Any, concrete: Any) -> Any:
    """A module with all that `concrete`, a function traced from `model`, reads: what is saved with it.

    The weights of our layers are none of that, since they are constants by then. Variables that are no weights are seen
    by the function alone, as the state of a recurrent layer is, and tables by the layer that looks up in them.
    """
    import tensorflow as tf

    from subbyte.keras_layers import layer_state

    module = tf.Module()
    weights = [v if isinstance(v, tf.Variable) else v.value for v in model.variables]
    variables = {id(variable.handle): variable for variable in (*weights, *concrete.variables)}
    read = {id(tensor) for tensor in concrete.captured_inputs}
    module.variables_of_graph = [variable for handle, variable in variables.items() if handle in read]
    held = [value for _, layer in layer_state.parts(model) for value in vars(layer).values()]
    module.tables = [value for value in held if isinstance(value, tf.saved_model.experimental.TrackableResource)]
    return module


def _input_structure(model: Any) -> Any:
    """A functional model's symbolic inputs as it takes them: one, or a list or dictionary of them; else None."""
    inputs = getattr(model, "inputs", None)
    return getattr(model, "input", inputs[0]) if inputs else None


def _input_specs(model: Any) -> list[Any]:
    import tensorflow as tf

    structure = _input_structure(model)
    if structure is not None:
        inputs = tf.nest.flatten(structure)
        return [_fixed(x.shape, tf.as_dtype(x.dtype), x.name.split(":")[0]) for x in inputs]
    # A subclassed model knows what it was built on.
    config = (model.get_build_config() or {}) if model.built else {}
    shape = config.get("input_shape")
    if shape is None and not config:
        raise ConversionError(f"{model.name} has no known input shape: call it on data before converting it")
    if not isinstance(shape, list | tuple | tf.TensorShape) or any(isinstance(size, list | tuple) for size in shape):
        raise ConversionError(f"{model.name} is a subclass with several inputs: convert the SavedModel of it")
    return [_fixed(tf.TensorShape(shape), tf.float32, "input_0")]


def _fixed(shape: Any, dtype: Any, name: str) -> Any:
    import tensorflow as tf

    shape = list(tf.TensorShape(shape))
    if None in shape[1:]:
        raise ConversionError(
            f"input {name} has a free dimension besides the batch, {tuple(shape)}: give it a fixed size"
        )
    if not re.fullmatch(r"[A-Za-z0-9_.\\/>-]+", name):
        raise ConversionError(f"TensorFlow's converter takes no input named {name!r}: name it with letters and digits")
    return tf.TensorSpec([1, *shape[1:]], dtype, name=name)


def _convert(module: Any, concrete: Any, optimizations: list[Any] | None = None) -> bytes:
    """The concrete function in TFLite; by default with what TensorFlow quantizes where it finds fake quantization."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        try:
            # Gradients would be traced for every function of the graph.
            options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
            tf.saved_model.save(module, folder, {"serving_default": concrete}, options)
            _drop_rounding(Path(folder) / "saved_model.pb")
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            converter.allow_custom_ops = True
            converter.exclude_conversion_metadata = True  # of TensorFlow's file, and it takes a reading and a writing
            converter.optimizations = [tf.lite.Optimize.DEFAULT] if optimizations is None else optimizations
            return bytes(converter.convert())
        except Exception as error:  # whatever the model's ops make TensorFlow raise
            reason = _no_16_bits(error, concrete) or _in_words(error)
            raise ConversionError(reason) from error


def check_ops(graph: Graph) -> None:
    """Raises ConversionError where TensorFlow's converter has left an op as it is, for which LiteRT has none."""
    import tensorflow as tf

    found = [
        (layer_name(graph, op), graph.kind(op))
        for op in graph.operators
        if hasattr(tf.raw_ops, graph.kind(op)) and graph.kind(op) not in _AUDIO_OPS
    ]
    if found:
        # A table that a layer looks up in has a name of its own.
        layer, kind = next((pair for pair in found if pair[0] in graph.layer_names), found[0])
        raise ConversionError(
            f"{layer} needs TensorFlow's {kind}, which LiteRT does not have: take it out of the model, and compute it "
            "before"
        )


def _no_16_bits(error: Exception, concrete: Any) -> str | None:
    """Why a model fails whose stock op TensorFlow cannot quantize to 16 bits: it writes an op that it then refuses."""
    found = re.search(r'fused\["\w+:", "([^"@]+)[^"]*"\].*\'tfl\.(\w+)\' op ', str(error))
    graph = concrete.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    if found is None or all(node.attr["num_bits"].i != 16 for node in nodes if "FakeQuant" in node.op):
        return None
    return (
        f"TensorFlow's converter has no {found[2].replace('_', ' ')} of 16-bit activations ({found[1]}): give the "
        "activation quantizers in front of it 8 bits or fewer, or take it out of the model"
    )


def _in_words(error: Exception) -> str:
    """What TensorFlow's converter says, the layer named in front and not in its intermediate representation."""
    found = re.search(r'fused\["\w+:", "([^"@]+)@', str(error))
    layer = re.sub(r"/\w*PartitionedCall$", "", found[1]) if found else "the model"
    reason = re.sub(r"^.*loc\(.*\)+: (error: )?", "", one_line(error))
    return f"TensorFlow's converter refuses {layer}: {reason}"


def _drop_rounding(path: Path) -> None:
    """Makes the rounding functions in a saved graph hand on what they get: the int8 tensor behind rounds by itself."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta_graph in saved.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            # Looking up a missing key would add it.
            if "_implements" in function.attr and function.attr["_implements"].func.name == ROUNDING:
                del function.attr["_implements"]
                del function.node_def[:]
                for output in function.signature.output_arg:
                    function.ret[output.name] = function.signature.input_arg[0].name
    path.write_bytes(saved.SerializeToString(deterministic=True))


def _in_batches(
    reference: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], size: int
) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """`reference`, called on `size` samples at a time."""

    def in_batches(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        samples = len(next(iter(inputs.values())))
        if samples <= size:
            return reference(inputs)  # of large models these are large: no copy
        starts = range(0, samples, size)
        batches = [reference({name: x[start : start + size] for name, x in inputs.items()}) for start in starts]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    return in_batches


def _keras_of(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive, archive.open("metadata.json") as metadata:
            return f"Keras {json.load(metadata)['keras_version']}"
    except (KeyError, ValueError, TypeError, OSError, zipfile.BadZipFile):
        return "who knows what"


def _config_of(path: Path) -> str:
    """The configuration of the model in a file, as JSON; nothing where there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read("config.json").decode()
    except (KeyError, ValueError, OSError, zipfile.BadZipFile):
        return ""


def _this_keras() -> str:
    import tensorflow as tf

    version = getattr(tf.keras, "__version__", None)
    return f"Keras {version}" if version else "tf-keras"
