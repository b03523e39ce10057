"""Converts trained models and runs them in the interpreter, on clips and on continuous streams; results are kept."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track as progress

from subbyte.keyword_spotting import metrics
from subbyte.keyword_spotting.data import Dataset, Recordings, Split
from subbyte.keyword_spotting.metrics import Counts, count_trials, moving_average
from subbyte.keyword_spotting.streams import Stream, count_events, make_stream

from .training import one_thread

#: Raise it when a change of the code moves what a kept model measures.
REVISION = 1
SPLITS = ("dev", "test")
#: A mean posterior below a fifth is no keyword: what would be told there costs time to count.
THRESHOLDS = metrics.THRESHOLDS[np.exp(metrics.THRESHOLDS) > 0.2]


@dataclass(frozen=True)
class Measured:
    """One configuration, deployed, on one split; its seeds are runs.

    Attributes:
        logits: float32 [runs, clips, classes], logarithms of the mean posteriors of a clip's windows.
        clips: counts of the trials of clips.
        streams: counts of events in the stream of everything in the split.
    """

    logits: NDArray[np.float32]
    clips: Counts
    streams: Counts


def tflite_of(model: Path) -> Path:
    """Where the file that is deployed lies: packed, of a float model the stock one."""
    return model.with_suffix(".tflite")


def measure_missing(
    models: dict[tuple[str, int], Path], data_dir: str | None, jobs: int
) -> dict[str, dict[str, Measured]]:
    """What each configuration gives on each split. `models` are .keras files by configuration and seed."""
    missing = [path for path in models.values() if not _results(path).is_file()]
    context = multiprocessing.get_context("spawn")
    if missing:
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=one_thread) as pool:
            running = [pool.submit(_measure, path, data_dir) for path in missing]
            for done in progress(as_completed(running), "measuring", total=len(running)):
                done.result()
    frames = {split: (_stream(split, data_dir), Dataset.load(data_dir).split(split)) for split in SPLITS}
    names = dict.fromkeys(name for name, _ in models)
    return {
        name: {split: _read([path for (of, _), path in models.items() if of == name], split, *frames[split])
               for split in SPLITS}
        for name in names
    }  # fmt: skip


def _results(model: Path) -> Path:
    return model.with_name(f"{model.stem}.results-{REVISION}.npz")


@functools.cache
def _stream(split: str, data_dir: str | None) -> Stream:
    """Every recording of the split once: keywords, sentences, sounds, with a second or two between them."""
    return make_stream(Recordings.of(split, data_dir))


def _measure(model: Path, data_dir: str | None) -> None:
    """Converts one model, runs it on both splits and keeps what it gives."""
    import tensorflow as tf

    from subbyte import converter, keras_layers, kernels
    from subbyte.keyword_spotting.demo import stock_tflite
    from subbyte.keyword_spotting.detector import StreamingDetector
    from subbyte.keyword_spotting.evaluate import interpreter_logits
    from subbyte.keyword_spotting.features import Normalization

    network = tf.keras.models.load_model(model, compile=False)
    is_float = not any(isinstance(layer, keras_layers.QuantInput) for layer in network.layers)
    content = stock_tflite(network) if is_float else converter.convert(network).tflite
    tflite_of(model).write_bytes(content)
    normalization = Normalization.load(model.with_suffix(".npz"))
    dataset, found = Dataset.load(data_dir), {}
    for split in SPLITS:
        interpreter = kernels.Interpreter(model_content=content, num_threads=1)
        stream = _stream(split, data_dir)
        counts = count_events(
            stream, [StreamingDetector(interpreter, normalization).track(stream.energies)], THRESHOLDS
        )
        logits = interpreter_logits(interpreter, normalization(dataset.split(split).views()))
        found |= {
            f"{split}_logits": moving_average(logits),
            f"{split}_hits": counts.hits[0],
            f"{split}_false_alarms": counts.false_alarms[0],
        }
    partial = _results(model).with_suffix(".part.npz")
    np.savez_compressed(partial, **found)
    partial.replace(_results(model))


def _read(models: Sequence[Path], split: str, stream: Stream, clips: Split) -> Measured:
    """The seeds of one configuration on one split."""
    found = [np.load(_results(path)) for path in models]
    logits = np.stack([run[f"{split}_logits"] for run in found])
    empty = count_events(stream, [], THRESHOLDS)
    hits, false_alarms = (np.stack([run[f"{split}_{what}"] for run in found]) for what in ("hits", "false_alarms"))
    streams = Counts(
        empty.thresholds, empty.groups, empty.positives, hits, false_alarms, empty.negatives, empty.seconds
    )
    return Measured(logits, count_trials(logits, clips.labels, clips.speakers), streams)
