"""What the accuracy benchmarks share: results kept by what they were made from, and cells of their tables."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subbyte import keras_layers, keyword_spotting
from subbyte.keyword_spotting.data import Split
from subbyte.keyword_spotting.evaluate import FALSE_ALARMS
from subbyte.keyword_spotting.intervals import Metric, bootstrap
from subbyte.keyword_spotting.metrics import keyword_accuracy, miss_rate

METRICS: dict[str, Metric] = {"keyword accuracy": keyword_accuracy} | {
    f"misses at {100 * rate:g} % cross-keyword false alarms": functools.partial(miss_rate, false_alarms=rate)
    for rate in FALSE_ALARMS
}


def code_digest() -> str:
    """The digest of every file that a trained model depends on."""
    folders = (Path(str(package.__file__)).parent for package in (keras_layers, keyword_spotting))
    files = (path for folder in folders for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def kept(file: Path, made_from: dict[str, Any], make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """The logits in `file` if it was made from the same, else new ones, which are then kept there."""
    if file.is_file():
        content = json.loads(file.read_text())
        if content["made_from"] == made_from:
            return np.array(content["logits"], np.float32)
    logits = make()
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps({"made_from": made_from, "logits": logits.astype(float).round(5).tolist()}))
    partial.replace(file)
    return logits


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def metric_cells(logits: NDArray[np.float32], test: Split) -> list[str]:
    """Each metric of one configuration's logits [seeds, clips, classes]: mean, deviation over seeds, interval."""
    cells = []
    for metric in METRICS.values():
        deviation = np.std([metric(run, test.labels) for run in logits], ddof=1 if len(logits) > 1 else 0)
        found = bootstrap(metric, logits, test.labels, test.speakers)
        interval = f"[{percent(found.low)}, {percent(found.high)}]"
        cells.append(f"{percent(found.value)} ± {percent(float(deviation))} {interval}")
    return cells
