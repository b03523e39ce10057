"""What a packed wake-word model does on continuous audio, as a device hears it.

    python -m benchmarks.streaming --model=build/demo/kws.tflite

Prints Markdown: whether streaming and the evaluation of clips agree on the test clips; misses and false alarms on
streams of all test recordings, at a threshold chosen on the streams of dev, with 95 % intervals over speakers and
recordings; memory and time on ten minutes of audio.
"""

from __future__ import annotations

import argparse
import math
import tracemalloc
from collections.abc import Iterable

import numpy as np

from subbyte.keyword_spotting import data, detector, metrics
from subbyte.keyword_spotting.alignment import keyword_centre
from subbyte.keyword_spotting.evaluate import file_logits
from subbyte.keyword_spotting.features import FRAME_STEP, SAMPLE_RATE, mel_energies
from subbyte.keyword_spotting.intervals import Interval, intervals
from subbyte.keyword_spotting.listen import listen, load_detector
from subbyte.keyword_spotting.metrics import THRESHOLDS
from subbyte.keyword_spotting.streams import Stream, count_events, fired, make_stream

BACKGROUNDS = (None, 20.0, 10.0)  # dB
ALARMS_PER_HOUR = (30.0, 10.0)
QUIET = 1e-4  # around a clip that is heard alone, as in streams


def agreement(model: str, dataset: data.Dataset, data_dir: str | None, threshold: float) -> Iterable[str]:
    """Lines that compare the scores of clips and the detections in the same clips, heard by a streaming detector."""
    streaming = load_detector(model)
    test = dataset.test
    scores = metrics.moving_average(file_logits(model, test.views()))[:, :-1]
    first, newest = data.MARGIN + data.VIEWS[0], data.MARGIN + data.VIEWS[-1] + detector.SPAN - 1
    same = 0
    for context, expected in zip(test.keywords, scores, strict=True):
        track = streaming.track(context[first % 3 :])
        same += np.array_equal(track.scores[track.frames == newest - first % 3][0], expected)
    yield f"* at the centre of a clip: {same} of {len(scores)} clips have the same scores, bit for bit"

    limit = math.log(threshold)
    own = np.arange(scores.shape[1]) == test.labels[:, np.newaxis]
    clipwise = scores >= limit
    centre, heard = np.zeros_like(clipwise), np.zeros_like(clipwise)
    rng = np.random.default_rng(0)
    for clip, recording in enumerate(data.Recordings.of("test", data_dir).wakewords):
        audio = data.read_audio(recording.path)
        place = round(keyword_centre(mel_energies(audio))) - data.CONTEXT // 2 + newest + SAMPLE_RATE // FRAME_STEP
        audio = np.pad(audio, SAMPLE_RATE)
        track = streaming.track(mel_energies(audio + QUIET * rng.standard_normal(len(audio))))
        centre[clip] = track.scores[np.abs(track.frames - place).argmin()] >= limit
        steps = fired(track.frames, track.scores.max(axis=1), limit)
        heard[clip, track.scores[steps].argmax(axis=1)] = True
    yield f"* decisions at the threshold {threshold:g}:\n"
    columns = "told clip-wise", "at that place in a stream", "agree, %", "anywhere in the recording", "agree, %"
    yield "| trials | " + " | ".join(columns) + " |\n|---|---:|---:|---:|---:|---:|"
    for what, cells in (("the keyword of the clip", own), ("another keyword", ~own)):
        row = [what, f"{clipwise[cells].sum()} of {cells.sum()}"]
        for told in (centre, heard):
            row += [str(told[cells].sum()), f"{100 * (clipwise == told)[cells].mean():.1f}"]
        yield "| " + " | ".join(row) + " |"


def percent(value: Interval) -> str:
    return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def hourly(value: Interval) -> str:
    return f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]"


def rates(model: str, data_dir: str | None) -> Iterable[str]:
    """A row for each background and each rate of false alarms on dev."""
    streaming = load_detector(model)
    yield "| background | false alarms an hour, dev | threshold | misses, % | false alarms an hour | FDR, % |"
    yield "|---|---:|---:|---:|---:|---:|"

    def stream_of(split: str, background: float | None) -> Stream:
        return make_stream(data.Recordings.of(split, data_dir), background=background)

    for background in BACKGROUNDS:
        dev, test = (stream_of(split, background) for split in ("dev", "test"))
        on_dev, on_test = (count_events(stream, [streaming.track(stream.energies)]) for stream in (dev, test))
        for limit in ALARMS_PER_HOUR:
            chosen = metrics.lowest_threshold(on_dev.totals().alarms_per_hour(), limit)
            found = intervals(
                lambda totals, at=chosen: np.stack(
                    [getattr(totals.at(at), name)() for name in ("miss_rates", "alarms_per_hour", "discovery_rates")],
                    axis=-1,
                ),
                on_test,
            )
            cells = percent(found[0]), hourly(found[1]), percent(found[2])
            what = "none" if background is None else f"{background:g} dB"
            posterior = math.exp(float(THRESHOLDS[chosen[0]]))
            yield f"| {what} | {limit:g} | {posterior:.3f} | " + " | ".join(cells) + " |"
    minutes = ", ".join(f"{name} {stream.seconds / 60:.0f} min" for name, stream in (("dev", dev), ("test", test)))
    yield f"\nLengths: {minutes}; {len(test.events)} keywords in test."


def endurance(model: str, minutes: int = 10) -> Iterable[str]:
    """Lines on time and memory while made-up audio is heard, a second at a time."""
    rng, streaming = np.random.default_rng(0), load_detector(model)
    seconds = [(0.01 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32) for _ in range(8)]
    usage = listen(streaming, (seconds[at % 8] for at in range(60 * minutes)), lambda _: None)
    yield f"* {usage}"
    streaming.reset()
    tracemalloc.start()
    peaks = []
    for minute in range(minutes):
        tracemalloc.reset_peak()
        for at in range(0, 60 * SAMPLE_RATE, FRAME_STEP):
            streaming.process(seconds[minute % 8][at % SAMPLE_RATE :][:FRAME_STEP])
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    kilobytes = ", ".join(f"{peak / 1024:.0f}" for peak in peaks)
    yield f"* peak memory of Python in each of {minutes} minutes, 10 ms at a time: {kilobytes} KB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a .tflite file with its .npz beside it")
    parser.add_argument("--data_dir", help="recordings; default: $SUBBYTE_DATA, else synthetic speech")
    parser.add_argument("--threshold", type=float, default=0.8, help="of the decisions that are compared")
    flags = parser.parse_args()
    dataset = data.Dataset.load(flags.data_dir, progress=True)
    print(f"{flags.model} on {dataset.source}\n")
    for part in (agreement(flags.model, dataset, flags.data_dir, flags.threshold), rates(flags.model, flags.data_dir)):
        for line in part:
            print(line, flush=True)
        print()
    print("\n".join(endurance(flags.model)))


if __name__ == "__main__":
    main()
