"""From whatever a user gives to a `Source`: Keras, SavedModel or `.tflite`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from subbyte.extras import needed_by

from . import keras_source
from .errors import ConversionError
from .flatbuffer import IDENTIFIER
from .source import Source

_HDF5 = b"\x89HDF\r\n\x1a\n"


@needed_by("converting a Keras model")
def read_source(model: Any) -> Source:
    """Reads a Keras model, the path of a `.keras`, SavedModel or `.tflite`, or the bytes of a `.tflite`.

    Raises ConversionError for anything else.
    """
    if isinstance(model, bytes | bytearray):
        return Source(bytes(model), "the model")
    if not isinstance(model, str | Path):
        return keras_source.from_keras(model)
    path = Path(model)
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise ConversionError(f"{path} is a folder without saved_model.pb: not a SavedModel")
        return keras_source.from_saved_model(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror}") from error
    if data[4:8] == IDENTIFIER:
        return Source(data, str(path))
    if path.suffix == ".keras":
        return keras_source.from_keras(keras_source.load_keras(path))
    if data[:8] == _HDF5:
        raise ConversionError(
            f"{path} is an HDF5 file: load it with tf.keras.models.load_model and save it as {path.stem}.keras"
        )
    raise ConversionError(
        f"{path} is no model that subbyte reads: give a .keras file, a SavedModel folder or a .tflite"
    )


@needed_by("quantizing a Keras model")
def quantized_source(model: Any, bits: int | None, first_last_bits: int, calibration: Any) -> Source:
    """Reads a float Keras model or the path of its `.keras`, and quantizes it without training."""
    if bits is None:
        raise ConversionError("--calibration goes with --bits: say how many bits the weights shall have")
    if isinstance(model, str | Path):
        if Path(model).suffix != ".keras" or not Path(model).is_file():
            raise ConversionError(f"--calibration is for a float Keras model, a .keras file: {model} is none")
        model = keras_source.load_keras(Path(model))
    return keras_source.from_float_keras(model, bits, first_last_bits, calibration)
