"""One page for several models: what each costs in detections and saves in bytes and microseconds.

python -m subbyte.keyword_spotting report --models m2.tflite m4.tflite --float m0.keras --output report.html
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subbyte import reports
from subbyte.reports import NOTHING, Footprint, Page, Plot, Section, Table, Timing, figures, footprint_parts, speed_rows

from . import plots
from .data import Split
from .evaluate import FALSE_ALARMS, interpreter_logits
from .features import Normalization
from .intervals import Interval, bootstrap, det_curve, interval
from .metrics import Counts, count_trials, keyword_accuracy, misses_at, moving_average

#: False-alarm rates of the plot.
CURVE = np.geomspace(0.001, 0.2, 60)


@dataclass(frozen=True)
class Model:
    """A model file and what it says to the clips.

    Attributes:
        name: in the page.
        tflite: the file.
        logits: float [clips, classes], the logarithm of the mean posterior of a clip's windows.
    """

    name: str
    tflite: bytes
    logits: NDArray[np.floating]


@dataclass(frozen=True)
class DetectionRates:
    """What one model reaches on a split; the differences are to the first model, and None of that itself.

    Attributes:
        accuracy: keyword accuracy.
        misses: at each rate of FALSE_ALARMS.
        curve: misses at each rate of CURVE.
        more_accuracy, more_misses: differences, paired.
    """

    accuracy: Interval
    misses: tuple[Interval, ...]
    curve: list[Interval]
    more_accuracy: Interval | None = None
    more_misses: tuple[Interval, ...] | None = None


@dataclass(frozen=True)
class Entry:
    """All that the page says of one model; `timing` is None where the interpreter refuses it."""

    name: str
    footprint: Footprint
    arena: int
    timing: Timing | None
    detection: DetectionRates

    @property
    def bits(self) -> str:
        """The widths of the weights: "4", or "8, 3" of a mixture."""
        return ", ".join(map(str, sorted({layer.bits for layer in self.footprint.layers}, reverse=True)))


def read(path: str | Path, split: Split, name: str, normalization: str | Path | None = None) -> Model:
    """A .tflite, or a float .keras as the stock interpreter runs it, on the clips of a split.

    Args:
        path: of the file.
        split: its clips are read in windows around their centres, as `evaluate` does.
        name: for the page.
        normalization: default: the .npz beside the model.

    Raises:
        ValueError: a file is missing, or no model of keywords.
    """
    from subbyte import kernels

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"model file {path} not found")
    inputs = Normalization.load(normalization or path.with_suffix(".npz"))(split.views())
    tflite = _float_tflite(path) if path.suffix == ".keras" else path.read_bytes()
    if tflite[4:8] != b"TFL3":
        raise ValueError(f"{path} is no .tflite: convert it with convert-to-tflite, or give a float model to --float")
    interpreter = kernels.Interpreter(model_content=tflite, num_threads=1)
    return Model(name, tflite, moving_average(interpreter_logits(interpreter, inputs)))


def _float_tflite(path: Path) -> bytes:
    from subbyte.converter import float_tflite, load_keras

    model = load_keras(path)
    if any(hasattr(layer, "kernel_quantizer") for layer in model.layers):
        raise ValueError(
            f"{path} has quantized layers: convert it with convert-to-tflite, give the .tflite to --models"
        )
    return float_tflite(model)


def detections(models: Sequence[Model], split: Split) -> list[DetectionRates]:
    """What each model reaches on `split`, with 95 % intervals; each draw takes the same speakers for all models."""
    accuracy = functools.partial(bootstrap, keyword_accuracy, labels=split.labels, speakers=split.speakers)
    counts = [count_trials(model.logits, split.labels, split.speakers) for model in models]
    found = []
    for model, counted in zip(models, counts, strict=True):
        is_first = model is models[0]
        found.append(
            DetectionRates(
                accuracy(logits=model.logits),
                tuple(interval(functools.partial(misses_at, alarms=rate), counted) for rate in FALSE_ALARMS),
                det_curve(counted, list(CURVE)),
                None if is_first else accuracy(logits=model.logits, against=models[0].logits),
                None if is_first else tuple(_difference(counted, counts[0], rate) for rate in FALSE_ALARMS),
            )
        )
    return found


def _difference(counts: Counts, first: Counts, rate: float) -> Interval:
    return interval(lambda model, base: misses_at(model, rate) - misses_at(base, rate), counts, first)


def report_page(models: Sequence[Model], split: Split, title: str, source: str) -> str:
    """The page, as HTML. It measures for a second or two.

    Args:
        models: the others are compared with the first. Their names differ.
        split: that of `Model.logits`.
        title: of the page.
        source: what the recordings are.
    """
    timings, refused = reports.microseconds({model.name: model.tflite for model in models})
    entries = [
        Entry(
            model.name,
            Footprint.of(model.tflite),
            reports.arena_bytes(model.tflite),
            timings.get(model.name),
            detection,
        )
        for model, detection in zip(models, detections(models, split), strict=True)
    ]
    first = entries[0]
    lead = (
        f"{len(split.labels)} clips of {len(np.unique(split.speakers))} speaker groups, of {source}. Everything is "
        f"compared with {first.name}. Intervals are 95 % over speaker groups; those of differences are paired."
    )
    speed = Table(
        "Microseconds an invoke() takes from Python, one thread, the models in turn",
        ("model", "median, µs", "fastest", "nine in ten", f"of {first.name}"),
        speed_rows(timings, refused, first.name),
    )
    sections = [
        Section("summary", "What each costs and saves", [], [_summary(entries), _bytes_plot(entries)]),
        _detection(entries),
        _size(entries),
        Section("speed", "Speed", [f"{reports.machine()}."], [speed]),
    ]
    return Page(title, lead, _highlights(entries), sections).html()


def _highlights(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    first = entries[0]
    smallest = min(entries, key=lambda entry: entry.footprint.file)
    best = max(entries, key=lambda entry: entry.detection.accuracy.value)
    found = [
        ("models", str(len(entries)), f"compared with {first.name}"),
        ("smallest", f"{smallest.footprint.file:,} bytes", f"{smallest.name}, {_share(smallest, first)}"),
        ("highest accuracy", f"{best.detection.accuracy.value:.1%}", f"{best.name}, {_ends(best.detection.accuracy)}"),
    ]
    timed = [(entry.timing.median, entry.name) for entry in entries if entry.timing is not None]
    if timed:
        seconds, name = min(timed)
        found.append(("fastest", f"{1e6 * seconds:.1f} µs", f"{name}, this machine"))
    return found


def _share(entry: Entry, of: Entry) -> str:
    return f"{entry.footprint.file / of.footprint.file:.1%} of {of.name}"


def _summary(entries: Sequence[Entry]) -> Table:
    first = entries[0]
    rows = []
    for entry in entries:
        found, more = entry.detection, entry.detection.more_misses
        rows.append(
            (
                entry.name,
                entry.bits,
                f"{entry.footprint.file:,}",
                f"{entry.footprint.file / first.footprint.file:.1%}",
                f"{entry.arena:,}",
                NOTHING if entry.timing is None else f"{1e6 * entry.timing.median:,.1f}",
                NOTHING
                if entry.timing is None or first.timing is None
                else f"{entry.timing.median / first.timing.median:.1%}",
                f"{found.accuracy.value:.1%}",
                NOTHING if found.more_accuracy is None else f"{100 * found.more_accuracy.value:+.1f}",
                *(
                    cell
                    for rate in range(len(FALSE_ALARMS))
                    for cell in (
                        f"{found.misses[rate].value:.1%}",
                        NOTHING if more is None else f"{100 * more[rate].value:+.1f}",
                    )
                ),
            )
        )
    of_first = f"of {first.name}"
    columns = ["model", "bits", "file, bytes", of_first, "arena, bytes", "µs", of_first, "accuracy", "points"]
    for rate in FALSE_ALARMS:
        columns += [f"misses at {100 * rate:g} %", "points"]
    caption = (
        f"Files, memory, time and accuracy beside those of {first.name}; points: the difference to it in percentage "
        "points. Intervals are below"
    )
    return Table(caption, columns, rows)


def _bytes_plot(entries: Sequence[Entry]) -> Plot:
    points = {}
    for entry in entries:
        misses = entry.detection.misses[0]
        points[entry.name] = (entry.footprint.file, misses.value, misses.low, misses.high)
    label = f"Misses at {FALSE_ALARMS[0]:.0%} false alarms over the bytes of the file"
    plot = plots.points_with_intervals("bytes", points, "file, bytes", "misses", label)
    return Plot(plot, f"{label}, with 95 % intervals")


def _detection(entries: Sequence[Entry]) -> Section:
    rows = []
    for entry in entries:
        found = entry.detection
        more = found.more_misses or (None,) * len(FALSE_ALARMS)
        cells = [_with_ends(found.accuracy), _points(found.more_accuracy)]
        for misses, difference in zip(found.misses, more, strict=True):
            cells += [_with_ends(misses), _points(difference)]
        rows.append((entry.name, *cells))
    columns = ["model", "keyword accuracy", "points"]
    for rate in FALSE_ALARMS:
        columns += [f"misses at {100 * rate:g} % false alarms", "points"]
    caption = "Detection with 95 % intervals; points: the difference to the first in percentage points, paired"
    curves = {}
    for entry in entries:
        curve = entry.detection.curve
        curves[entry.name] = (
            CURVE,
            [point.value for point in curve],
            [point.low for point in curve],
            [point.high for point in curve],
        )
    label = "Detection error tradeoff: misses over cross-keyword false alarms, both in normal deviates"
    plot = plots.tradeoffs("tradeoff", curves, label, least=float(CURVE[0]))
    sentences = [
        "A clip is a trial for its own keyword, and for each of the others one in which nothing should fire. The "
        "threshold is the lowest with no more than the false alarms that are named, on these clips themselves. A "
        "difference whose interval has 0 in it may be chance."
    ]
    below = f"{label}. Bands: 95 % intervals. Rates below {CURVE[0]:.1%} are drawn there"
    return Section("detection", "Detection", sentences, [Table(caption, columns, rows), Plot(plot, below)])


def _ends(found: Interval) -> str:
    return f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _with_ends(found: Interval) -> str:
    return f"{found.value:.1%} {_ends(found)}"


def _points(difference: Interval | None) -> str:
    if difference is None:
        return NOTHING
    return f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def _size(entries: Sequence[Entry]) -> Section:
    rows = []
    for entry in entries:
        size = entry.footprint
        counts = (size.weights, size.records, size.rest, size.everything_else, size.file, entry.arena)
        rows.append((entry.name, entry.bits, *(f"{value:,}" for value in counts)))
    columns = ("model", "bits", "weights", "records", "padding", "everything else", "file", "arena")
    caption = (
        "Bytes of each file by what they are for, and the arena: memory for activations, the packed kernels' scratch "
        "memory included; stock files without XNNPACK, which keeps its own"
    )
    bars = figures.stacked_bars(
        "files", {entry.name: footprint_parts(entry.footprint) for entry in entries}, "bytes", "Bytes of each file"
    )
    sentences = [
        "Weights: with what fills the last blocks of packed planes. Records: what each channel has besides, "
        "multipliers and biases, in stock files scales and zero points. Padding: headers of packed layers and what "
        "aligns their parts. Everything else: the graph, its tensors and names. convert-to-tflite --report shows one "
        "model in more detail: its codes, ranges, and every target.",
    ]
    layers = [_layers(entry) for entry in entries]
    return Section(
        "size", "Size", sentences, [Table(caption, columns, rows), Plot(bars, "Bytes of each file"), *layers]
    )


def _layers(entry: Entry) -> Table:
    size = entry.footprint
    rows = [
        (
            layer.layer,
            str(layer.bits),
            *(f"{value:,}" for value in (layer.weights, layer.records, layer.rest, layer.total)),
            f"{layer.total / size.file:.1%}",
            f"{4 * layer.parameters:,}",
        )
        for layer in size.layers
    ]
    floating = sum(4 * layer.parameters for layer in size.layers)
    other = size.everything_else
    sums = [
        ("everything else", *[""] * 4, f"{other:,}", f"{other / size.file:.1%}", f"{other:,}"),
        (
            *("file", ""),
            *(f"{value:,}" for value in (size.weights, size.records, size.rest, size.file)),
            "100.0%",
            f"{floating + other:,}",
        ),
    ]
    columns = ("layer", "bits", "weights", "records", "padding", "total", "share", "float32, computed")
    return Table(f"{entry.name}: bytes of each layer", columns, rows, sums)
