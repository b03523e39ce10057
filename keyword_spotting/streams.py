"""Continuous streams with keywords at known times, and what a detector does on them, counted as on a device.

    stream = make_stream(Recordings.of("test"), background=10.0)
    track = detector.track(stream.energies)
    counts = count_events(stream, [track])                       # metrics.Counts, at every threshold

A stream is recordings one after the other in random order, each followed by a gap: clips with a keyword, sentences
without, background sounds. A recording and the gap behind it are one segment, of one group: its speaker, or the sound.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import alignment, detector
from .data import Recording, Recordings, read_audio
from .detector import Track
from .features import FRAME_LENGTH, FRAME_STEP, SAMPLE_RATE, mel_energies
from .metrics import THRESHOLDS, Counts, Floats

Audio = NDArray[np.float32]

KINDS = ("keyword", "speech", "noise")
FADE = SAMPLE_RATE // 100  # samples: 10 ms at both ends of a recording
QUIET = 1e-4  # deviation of the white noise under everything, full scale 1: -80 dB; microphones are never silent


@dataclass(frozen=True)
class Event:
    """A keyword that is said in a stream, from `start_s` to `end_s` seconds."""

    keyword: str
    start_s: float
    end_s: float
    group: str


@dataclass(frozen=True)
class Segment:
    """A recording in a stream, from `start_s` to the beginning of the next, its gap included."""

    start_s: float
    end_s: float
    group: str
    kind: str


@dataclass(frozen=True)
class Stream:
    """Audio that goes on, and what is said in it.

    Attributes:
        audio: float32 [samples], mono at 16 kHz, full scale 1.
        keywords: class names in the order of a model's outputs.
        events: in the order of time; they do not overlap.
        segments: in the order of time; together they cover the audio.
    """

    audio: Audio
    keywords: tuple[str, ...]
    events: tuple[Event, ...]
    segments: tuple[Segment, ...]

    @property
    def seconds(self) -> float:
        """The length of the audio."""
        return len(self.audio) / SAMPLE_RATE

    @functools.cached_property
    def energies(self) -> NDArray[np.float32]:
        """`features.mel_energies` of the audio [frames, MEL_BINS], computed once for all detectors."""
        step = 1000  # frames at once: an hour's would need gigabytes
        starts = range(0, (len(self.audio) - FRAME_LENGTH) // FRAME_STEP + 1, step)
        samples = (step - 1) * FRAME_STEP + FRAME_LENGTH
        return np.concatenate([mel_energies(self.audio[at * FRAME_STEP :][:samples]) for at in starts])


def make_stream(
    recordings: Recordings,
    seconds: float | None = None,
    background: float | None = None,
    gap: tuple[float, float] = (1.0, 2.0),
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
) -> Stream:
    """Joins recordings to a stream. The same arguments give the same samples.

    Args:
        recordings: of one split.
        seconds: ends before the recording that would exceed this length; None: every recording is in it, once.
        background: dB of the keyword's, or sentence's, power over that of the split's background sounds, which then go
            on under every clip, sentence and gap; None: none.
        gap: seconds of quiet after each recording, shortest and longest. From 1 s on, what a recording makes a detector
            do happens in its own segment, and the lock-out of one keyword ends before the next.
        kinds: which recordings, of KINDS.
        seed: of the order, the gaps and the background.

    Raises:
        ValueError: no such kind, or the stream would be empty.
    """
    rng, playlist = np.random.default_rng(seed), _playlist(recordings, kinds)
    parts, events, segments = list[Audio](), list[Event](), list[Segment]()
    start, sound = 0, functools.cache(lambda recording: _faded(read_audio(recording.path)))
    for index in rng.permutation(len(playlist)):
        kind, recording = playlist[index]
        speech = read_audio(recording.path)
        audio = np.pad(_faded(speech), (0, round(rng.uniform(*gap) * SAMPLE_RATE)))
        if seconds is not None and start + len(audio) > seconds * SAMPLE_RATE:
            break
        first, last = _keyword_samples(speech) if kind == "keyword" else (0, len(speech))
        if background is not None and kind != "noise":
            audio += _background(recordings.noise, sound, len(audio), rng) * _level(speech[first:last], background)
        begin, end = start / SAMPLE_RATE, (start + len(audio)) / SAMPLE_RATE
        segments.append(Segment(begin, end, recording.group, kind))
        if recording.keyword is not None:
            said = begin + first / SAMPLE_RATE, begin + last / SAMPLE_RATE
            events.append(Event(recording.keyword, *said, recording.group))
        parts.append(audio)
        start += len(audio)
    if not parts:
        raise ValueError("the stream would be empty: no recordings of these kinds, or none as short as asked")
    return Stream(_with_quiet_noise(np.concatenate(parts), rng), recordings.keywords, tuple(events), tuple(segments))


def _playlist(recordings: Recordings, kinds: Sequence[str]) -> list[tuple[str, Recording]]:
    """The recordings of some kinds, each with its kind; raises ValueError where there is no such kind."""
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"no kind of recording {min(unknown)!r}: choose among {', '.join(KINDS)}")
    by_kind = zip(KINDS, (recordings.wakewords, recordings.speech, recordings.noise), strict=True)
    return [(kind, recording) for kind, members in by_kind if kind in kinds for recording in members]


def _with_quiet_noise(audio: Audio, rng: np.random.Generator) -> Audio:
    """The same array, to which noise of deviation QUIET is added by the second, which bounds the memory."""
    for begin in range(0, len(audio), SAMPLE_RATE):
        audio[begin : begin + SAMPLE_RATE] += QUIET * rng.standard_normal(len(audio[begin : begin + SAMPLE_RATE]))
    return audio


def _faded(audio: Audio) -> Audio:
    ramp = np.linspace(0.0, 1.0, FADE, dtype=np.float32)
    faded = audio.copy()
    faded[:FADE] *= ramp
    faded[-FADE:] *= ramp[::-1]
    return faded


def _keyword_samples(audio: Audio) -> tuple[int, int]:
    """The first sample of the keyword in a clip, and the first after it."""
    first, last = alignment.keyword_span(mel_energies(audio))
    return first * FRAME_STEP, min(last * FRAME_STEP + FRAME_LENGTH, len(audio))


def _background(
    noise: Sequence[Recording], sound: Callable[[Recording], Audio], samples: int, rng: np.random.Generator
) -> Audio:
    """Background sounds [samples] of mean power 1, one behind the other."""
    parts: list[Audio] = []
    while sum(map(len, parts)) < samples:
        parts.append(sound(noise[int(rng.integers(len(noise)))]))
    joined = np.concatenate(parts)[:samples]
    power = float(np.mean(np.square(joined, dtype=np.float64)))
    return joined / np.float32(np.sqrt(max(power, 1e-10)))  # what is silent stays so


def _level(speech: Audio, decibels: float) -> np.float32:
    """The amplitude `decibels` below the mean power of `speech`."""
    return np.float32(np.sqrt(np.mean(np.square(speech, dtype=np.float64))) * 10.0 ** (-decibels / 20.0))


def fired(frames: NDArray[np.int64], best: Floats, threshold: float, lockout: int = 100) -> NDArray[np.intp]:
    """The steps [detections] in which `StreamingDetector.process` tells a keyword.

    The first that reaches the threshold, then the first of those behind its lock-out, and so on.

    Args:
        frames: [steps], of a Track.
        best: [steps], the largest score of each step.
        threshold: see StreamingDetector.
        lockout: see StreamingDetector.
    """
    steps = np.flatnonzero(best >= threshold)
    following = np.searchsorted(frames[steps], frames[steps] + max(lockout, 1)).tolist()
    taken, at = [], 0
    while at < len(steps):
        taken.append(at)
        at = following[at]
    return steps[taken]


def count_events(
    stream: Stream,
    tracks: Sequence[Track],
    thresholds: Floats = THRESHOLDS,
    lockout: int = 100,
    tolerance: float = 0.5,
) -> Counts:
    """Counts hits and false alarms as a device makes them, at every threshold.

    A detection of a keyword between the beginning of one of its events and `tolerance` seconds after the end is a hit.
    Everything else is a false alarm: the wrong keyword, nothing said, too late, and the second detection of one event,
    since a device would act twice. False alarms belong to the group of the segment in which they happen.

    Args:
        stream: what was heard.
        tracks: of `StreamingDetector.track` on the stream, one for each run.
        thresholds: see Counts.
        lockout: frames after a detection in which there is no other.
        tolerance: seconds.
    """
    groups, of_segment = np.unique([segment.group for segment in stream.segments], return_inverse=True)
    of_event = np.searchsorted(groups, [event.group for event in stream.events])
    lengths = [segment.end_s - segment.start_s for segment in stream.segments]
    counter = _Counter(stream, of_segment, of_event, len(groups), tolerance)
    hits = np.zeros((len(tracks), len(groups), len(thresholds)))
    false_alarms = np.zeros_like(hits)
    for run, track in enumerate(tracks):
        likeliest, best, times = track.scores.argmax(axis=1), track.scores.max(axis=1), detector.seconds(track.frames)
        for at, threshold in enumerate(thresholds):
            steps = fired(track.frames, best, threshold, lockout)
            hits[run, :, at], false_alarms[run, :, at] = counter.count(times[steps], likeliest[steps])
    return Counts(
        thresholds,
        groups,
        np.bincount(of_event, minlength=len(groups)).astype(np.float64),
        hits,
        false_alarms,
        np.zeros(len(groups)),
        np.asarray(np.bincount(of_segment, lengths, len(groups)), np.float64),
    )


class _Counter:
    """Tells hits from false alarms; the events of a stream, sorted by keyword and then by time."""

    def __init__(self, stream: Stream, of_segment: Any, of_event: Any, groups: int, tolerance: float) -> None:
        self._apart = 2.0 * stream.seconds + tolerance + 1.0  # between the times of two keywords, on one axis
        keyword = np.array([stream.keywords.index(event.keyword) for event in stream.events], np.int64)
        starts = keyword * self._apart + np.array([event.start_s for event in stream.events])
        order = np.argsort(starts, kind="stable")
        self._starts = starts[order]
        self._ends = (keyword * self._apart + np.array([event.end_s for event in stream.events]))[order] + tolerance
        self._of_event, self._of_segment, self._groups = of_event[order], of_segment, groups
        self._segments = np.array([segment.start_s for segment in stream.segments])

    def count(self, times: Floats, keywords: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hits [groups] and false alarms [groups] of detections at rising `times`, in seconds."""
        place = keywords * self._apart + times
        event = np.searchsorted(self._starts, place, side="right") - 1
        within = (event >= 0) & (place <= np.append(self._ends, -np.inf)[event])
        found, first = np.unique(np.where(within, event, -1), return_index=True)
        hit = np.zeros(len(times), bool)
        hit[first[found >= 0]] = True
        segment = np.searchsorted(self._segments, times[~hit], side="right") - 1
        hits = np.bincount(self._of_event[event[hit]], minlength=self._groups)
        return hits, np.bincount(self._of_segment[segment], minlength=self._groups)
