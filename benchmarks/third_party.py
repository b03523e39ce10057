"""Models that others trained, requantized: bytes, and how often the answer stays the same. No training, no labels.

    python -m benchmarks.third_party                    # every recording of the data folder: half a minute
    python -m benchmarks.third_party --clips 300        # so many of them

The two int8 keyword models of MLPerf Tiny (mlcommons/tiny, 1afd2c9), on one second of real speech each: the loudest of
every recording in the data folder's `wakewords/` and `running_speech/`. Neither model was trained on these words, so
most clips are "unknown" to them, as they should be; a model in fewer bits has to say so too. The features are those of
the models' training scripts:

* keyword spotting (benchmark/training/keyword_spotting/get_dataset.py, "mfcc"): audio divided by its largest sample;
  magnitude spectrum of 30 ms Hann windows every 20 ms; 40 mel bands from 20 to 4000 Hz; logarithm of that plus 1e-6;
  the first 10 coefficients of its cosine transform, 49 x 10.
* streaming wake word (benchmark/training/streaming_wakeword/get_dataset.py, `get_lfbe_func`): pre-emphasis by 31/32;
  power spectrum of 64 ms Hamming windows every 32 ms, divided by the window's length; 40 mel bands from 0 to 8000 Hz;
  in dB, plus 52, over 64, kept within 0 to 1, 30 x 1 x 40. Training mixed noise in at random levels; here is none.

Prints Markdown: the file's bytes; the share of clips with the original's top class, and of those where the original
gives it at least 90 %; the mean change of the outputs, which are probabilities.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter as StockInterpreter
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.converter import convert
from subbyte.keyword_spotting.data import read_audio
from subbyte.keyword_spotting.evaluate import quantize
from subbyte.keyword_spotting.features import SAMPLE_RATE

from .tables import markdown_table

Floats = NDArray[np.float32]
SPEECH = ("wakewords", "running_speech")
BITS = (8, 6, 5, 4, 3)
SURE = 0.9


def mfcc(audio: Floats) -> Floats:
    """[clips, SAMPLE_RATE] to the inputs [clips, 49, 10, 1] of the keyword model."""
    import tensorflow as tf

    audio = audio / np.maximum(audio.max(axis=1, keepdims=True), 1e-9)
    magnitude = tf.abs(tf.signal.stft(audio, 480, 320, window_fn=tf.signal.hann_window))
    mel = tf.signal.linear_to_mel_weight_matrix(40, magnitude.shape[-1], SAMPLE_RATE, 20.0, 4000.0)
    log_mel = tf.math.log(tf.tensordot(magnitude, mel, 1) + 1e-6)
    return tf.signal.mfccs_from_log_mel_spectrograms(log_mel)[..., :10, np.newaxis].numpy()


def filter_banks(audio: Floats) -> Floats:
    """[clips, SAMPLE_RATE] to the inputs [clips, 30, 1, 40] of the wake-word model."""
    import tensorflow as tf

    emphasized = audio - (1 - 2**-5) * np.pad(audio, ((0, 0), (1, 0)))[:, :-1]
    window = functools.partial(tf.signal.hamming_window, periodic=False)
    power = tf.abs(tf.signal.stft(emphasized, 1024, 512, window_fn=window)) ** 2 / 1024
    mel = tf.signal.linear_to_mel_weight_matrix(40, power.shape[-1], SAMPLE_RATE, 0.0, SAMPLE_RATE / 2)
    decibels = 10 * np.log10(np.maximum(tf.tensordot(power, mel, 1).numpy(), 1e-30))
    return np.clip((decibels + 52) / 64, 0, 1)[:, :, np.newaxis].astype(np.float32)


@dataclass(frozen=True)
class Reference:
    """A published model.

    Attributes:
        title: for people.
        path: below the data folder.
        features: audio [clips, SAMPLE_RATE] to its inputs.
        unknown: its class for what it does not know.
    """

    title: str
    path: str
    features: Callable[[Floats], Floats]
    unknown: int


REFERENCES = (
    Reference("keyword spotting, DS-CNN", "mlperf_tiny_kws/kws_ref_model.tflite", mfcc, 11),
    Reference("streaming wake word", "mlperf_tiny_kws/str_ww_ref_model.tflite", filter_banks, 2),
)


def loudest_second(audio: Floats) -> Floats:
    """[SAMPLE_RATE] of the most energy; a shorter recording stands in the middle of silence."""
    missing = max(0, SAMPLE_RATE - len(audio))
    audio = np.pad(audio, (missing // 2, missing - missing // 2))
    energy = np.concatenate([[0.0], np.cumsum(audio.astype(np.float64) ** 2)])
    start = int(np.argmax(energy[SAMPLE_RATE:] - energy[:-SAMPLE_RATE]))
    return audio[start : start + SAMPLE_RATE]


def read_clips(folder: Path, count: int | None = None) -> Floats:
    """[clips, SAMPLE_RATE], evenly over the recordings where `count` is less than there are.

    Raises ValueError where there are none.
    """
    paths = sorted(path for name in SPEECH for path in (folder / name).rglob("*.flac"))
    if not paths:
        raise ValueError(f"{folder} has no .flac recordings in {' or '.join(SPEECH)}")
    chosen = np.unique(np.linspace(0, len(paths) - 1, count or len(paths)).astype(int))
    return np.stack([loudest_second(read_audio(paths[index])) for index in chosen])


def probabilities(interpreter: Any, inputs: Floats) -> Floats:
    """Outputs [clips, classes] of an int8 model that ends in a Softmax."""
    interpreter.allocate_tensors()
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = y["quantization"]
    rows = []
    for codes in quantize(inputs, x):
        interpreter.set_tensor(x["index"], codes[np.newaxis])
        interpreter.invoke()
        rows.append((interpreter.get_tensor(y["index"])[0].astype(np.float32) - zero_point) * scale)
    return np.stack(rows)


def compare(model: bytes, inputs: Floats, unknown: int, bits: Sequence[int] = BITS) -> str:
    """A sentence on the original and the table of the model at each width."""
    original = probabilities(StockInterpreter(model_content=model), inputs)
    classes, sure = original.argmax(axis=1), original.max(axis=1) >= SURE
    rows = [["original, int8", f"{len(model):,}", "", "", "", ""]]
    for width in bits:
        for ends in dict.fromkeys((8, width)):
            packed = convert(model, io="int8", bits=width, first_last_bits=ends).tflite
            found = probabilities(kernels.Interpreter(model_content=packed), inputs)
            same = found.argmax(axis=1) == classes
            rows.append(
                [
                    f"{width} bits" + (", first and last layer 8" if ends != width else ""),
                    f"{len(packed):,}",
                    f"{len(packed) / len(model):.1%}",
                    f"{same.mean():.1%}",
                    f"{same[sure].mean():.1%}",
                    f"{np.abs(found - original).mean():.4f}",
                ]
            )
    header = ["weights", "bytes", "of the original", "same class", f"where {SURE:.0%} sure", "mean change"]
    others = len(np.unique(classes[classes != unknown]))
    return "\n\n".join(
        [
            f"{len(inputs)} clips. The original calls {np.mean(classes == unknown):.1%} unknown, spreads the rest over "
            f"{others} of its other classes, and is at least {SURE:.0%} sure of {sure.mean():.1%}.",
            markdown_table(header, rows),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SUBBYTE_DATA"), help="default: $SUBBYTE_DATA")
    parser.add_argument("--clips", type=int, help="how many; default: one of each recording")
    options = parser.parse_args(arguments)
    missing = [
        reference.path for reference in REFERENCES if not (options.data and (options.data / reference.path).is_file())
    ]
    if missing:
        where = f"in {options.data}" if options.data else "without a data folder: set SUBBYTE_DATA"
        print(f"third_party: there is no {missing[0]} {where}", file=sys.stderr)
        sys.exit(2)
    try:
        clips = read_clips(options.data, options.clips)
    except ValueError as error:
        print(f"third_party: {error}", file=sys.stderr)
        sys.exit(2)
    for reference in REFERENCES:
        model = (options.data / reference.path).read_bytes()
        print(f"## {reference.title}\n\n{compare(model, reference.features(clips), reference.unknown)}\n", flush=True)


if __name__ == "__main__":
    main()
