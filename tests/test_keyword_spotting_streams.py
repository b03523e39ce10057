"""Streams with keywords at known times, and counting hits and false alarms on them."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from subbyte.keyword_spotting import alignment, data, detector, features, intervals, streams, synthesize

RATE = features.SAMPLE_RATE


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> data.Recordings:
    """The test split of two phrases in ten synthetic voices."""
    folder = tmp_path_factory.mktemp("speech")
    synthesize.synthesize(folder, {"alexa": "alexa", "view_glass": "view glass"}, speaker_count=10, noises=10)
    return data.Recordings.of("test", folder)


def tones(folder: Path) -> data.Recordings:
    """Two keyword clips, a sentence and a sound: a tone from 0.5 to 1.1 s in 2 s, one of 3 s, noise of 1 s."""
    rng, time = np.random.default_rng(0), np.arange(RATE * 3) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 1000.0 * time)
    within = (time >= 0.5) & (time < 1.1)
    clips = {
        "first": (tone * within)[: 2 * RATE],
        "second": (0.5 * tone * within)[: 2 * RATE],
        "sentence": tone,
        "sound-A": 0.1 * rng.standard_normal(RATE),
    }
    for name, audio in clips.items():
        soundfile.write(folder / f"{name}.wav", audio + 1e-5 * rng.standard_normal(len(audio)), RATE)

    def of(name: str, group: str, keyword: str | None = None) -> data.Recording:
        return data.Recording(folder / f"{name}.wav", group, keyword)

    wakewords = (of("first", "anna", "one"), of("second", "bert", "two"))
    return data.Recordings(("one", "two"), wakewords, (of("sentence", "anna"),), (of("sound-A", "sound"),))


# Recordings by split


def test_recordings_are_those_of_the_split(recordings: data.Recordings) -> None:
    assert recordings.keywords == ("alexa", "view_glass")
    assert len(recordings.wakewords) == 8
    assert {one.keyword for one in recordings.speech + recordings.noise} == {None}
    assert {one.group for one in recordings.speech} == {one.group for one in recordings.wakewords}
    with pytest.raises(ValueError, match="no split 'tset'"):
        data.Recordings.of("tset")


def test_recordings_are_in_the_order_of_the_dataset(recordings: data.Recordings, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    split = data.Dataset.load(recordings.wakewords[0].path.parents[3]).test
    assert [one.group for one in recordings.wakewords] == split.speakers.tolist()
    for one, context in zip(recordings.wakewords, split.keywords, strict=True):
        found = data.keyword_context(features.mel_energies(data.read_audio(one.path)))
        np.testing.assert_array_equal(found, context)


# Streams


def test_everything_is_in_the_stream_once_and_segments_cover_it(recordings: data.Recordings) -> None:
    stream = streams.make_stream(recordings, seed=1)
    assert stream.audio.dtype == np.float32
    assert len(stream.events) == len(recordings.wakewords)
    everything = recordings.wakewords + recordings.speech + recordings.noise
    assert sorted(segment.group for segment in stream.segments) == sorted(one.group for one in everything)
    assert stream.segments[0].start_s == 0.0
    assert stream.segments[-1].end_s == pytest.approx(stream.seconds)
    for one, following in zip(stream.segments, stream.segments[1:], strict=False):
        assert one.end_s == following.start_s
    lengths = sum(len(data.read_audio(one.path)) for one in everything) / RATE
    gaps = (stream.seconds - lengths) / len(everything)
    assert 1.0 < gaps < 2.0


def test_the_audio_is_the_recordings_at_their_times(recordings: data.Recordings) -> None:
    """Found by their group and keyword; at rest from the fades only the faint noise is added."""
    stream = streams.make_stream(recordings, seed=2)
    clips = {(one.group, len(audio)): audio for one in recordings.speech for audio in [data.read_audio(one.path)]}
    found = 0
    for segment in stream.segments:
        if segment.kind != "speech":
            continue
        (_, audio) = next((key, audio) for key, audio in clips.items() if key[0] == segment.group)
        at = round(segment.start_s * RATE)
        inner = slice(streams.FADE, len(audio) - streams.FADE)
        np.testing.assert_allclose(stream.audio[at:][inner], audio[inner], atol=6 * streams.QUIET)
        assert np.abs(stream.audio[at + len(audio) : round(segment.end_s * RATE)]).max() < 6 * streams.QUIET
        found += 1
    assert found == len(recordings.speech)


def test_events_lie_where_the_keyword_sounds(tmp_path: Path) -> None:
    """The tone lasts from 0.5 to 1.1 s of its clip; a span is right to the length of a frame and its smoothing."""
    stream = streams.make_stream(tones(tmp_path), kinds=["keyword"], seed=0)
    assert {(event.keyword, event.group) for event in stream.events} == {("one", "anna"), ("two", "bert")}
    for event, segment in zip(stream.events, stream.segments, strict=True):
        assert event.start_s - segment.start_s == pytest.approx(0.5, abs=0.05)
        assert event.end_s - segment.start_s == pytest.approx(1.1, abs=0.05)


def test_the_middle_of_a_span_is_the_centre_of_training(recordings: data.Recordings) -> None:
    stream = streams.make_stream(recordings, kinds=["keyword"])
    starts = {round(one.start_s * RATE): one for one in stream.segments}
    for event in stream.events:
        start = max(begin for begin in starts if begin / RATE <= event.start_s)
        audio = stream.audio[start : round(starts[start].end_s * RATE)]
        centre = alignment.keyword_centre(features.mel_energies(audio[: -round(0.9 * RATE)])) * 0.01 + 0.0125
        assert (event.start_s + event.end_s) / 2 - start / RATE == pytest.approx(centre, abs=0.1)


@pytest.mark.parametrize("decibels", [20.0, 0.0])
def test_background_has_the_asked_level(tmp_path: Path, decibels: float) -> None:
    """The tone's power is 0.045 where it sounds; half of the clip and the gap behind are background alone."""
    recordings = tones(tmp_path)
    stream = streams.make_stream(recordings, background=decibels, kinds=["speech"], gap=(30.0, 30.0))
    behind = stream.audio[3 * RATE :].astype(float)
    assert 10 * math.log10(0.045 / np.mean(behind**2)) == pytest.approx(decibels, abs=0.5)
    clean = streams.make_stream(recordings, kinds=["speech"], gap=(30.0, 30.0))
    assert np.std(clean.audio[3 * RATE :]) == pytest.approx(streams.QUIET, rel=0.02)


def test_seeds_decide_and_a_length_ends_with_a_whole_recording(recordings: data.Recordings) -> None:
    stream = streams.make_stream(recordings, background=10.0, seed=3)
    again = streams.make_stream(recordings, background=10.0, seed=3)
    np.testing.assert_array_equal(stream.audio, again.audio)
    assert stream.events == again.events
    assert streams.make_stream(recordings, seed=4).segments != streams.make_stream(recordings, seed=5).segments
    short = streams.make_stream(recordings, seconds=30.0, background=10.0, seed=3)
    assert 15.0 < short.seconds <= 30.0
    assert short.segments == stream.segments[: len(short.segments)]


def test_energies_of_a_stream_are_those_of_its_audio(recordings: data.Recordings) -> None:
    stream = streams.make_stream(recordings)
    np.testing.assert_array_equal(stream.energies, features.mel_energies(stream.audio))


def test_streams_that_cannot_be_are_refused(recordings: data.Recordings) -> None:
    with pytest.raises(ValueError, match="no kind of recording 'music'"):
        streams.make_stream(recordings, kinds=["music"])
    with pytest.raises(ValueError, match="would be empty"):
        streams.make_stream(recordings, seconds=0.1)


# Counting

# Ten seconds: anna says "one" at 1.0 to 1.6 s and again at 4.0 to 4.6 s; from 6 s on bert says "two" at 7.0 to 7.5 s.
BY_HAND = streams.Stream(
    np.zeros(10 * RATE, np.float32),
    ("one", "two"),
    (
        streams.Event("one", 1.0, 1.6, "anna"),
        streams.Event("one", 4.0, 4.6, "anna"),
        streams.Event("two", 7.0, 7.5, "bert"),
    ),
    (streams.Segment(0.0, 6.0, "anna", "keyword"), streams.Segment(6.0, 10.0, "bert", "keyword")),
)


def track_of(*told: tuple[float, str, float]) -> detector.Track:
    """A track of the ten seconds that says a keyword with a posterior at each of the times, and nothing otherwise."""
    frames = np.arange(0, 1000, 3)
    scores = np.full((len(frames), 2), math.log(0.01))
    for at, keyword, posterior in told:
        scores[np.argmax(detector.seconds(frames) >= at), ("one", "two").index(keyword)] = math.log(posterior)
    return detector.Track(frames, scores)


HALF = np.array([math.log(0.5), np.inf])


@pytest.mark.parametrize(
    ("told", "hits", "false_alarms"),
    [
        ([], [0, 0], [0, 0]),
        ([(1.2, "one", 0.9)], [1, 0], [0, 0]),
        ([(2.05, "one", 0.9)], [1, 0], [0, 0]),  # within half a second of the end
        ([(2.12, "one", 0.9)], [0, 0], [1, 0]),  # too late
        ([(0.9, "one", 0.9)], [0, 0], [1, 0]),  # before anything is said
        ([(1.2, "two", 0.9)], [0, 0], [1, 0]),  # the wrong keyword
        ([(1.2, "one", 0.9), (4.2, "one", 0.9), (7.6, "two", 0.9)], [2, 1], [0, 0]),
        ([(1.0, "one", 0.9), (1.5, "one", 0.9)], [1, 0], [0, 0]),  # the second is locked out
        ([(1.0, "one", 0.9), (2.04, "one", 0.9)], [1, 0], [1, 0]),  # and is told twice after the lock-out
        ([(0.3, "two", 0.6), (1.2, "one", 0.9)], [0, 0], [1, 0]),  # a false alarm locks a keyword out
        ([(0.3, "two", 0.4), (1.2, "one", 0.9)], [1, 0], [0, 0]),  # one below the threshold does not
        ([(5.9, "two", 0.9), (9.9, "one", 0.9)], [0, 0], [1, 1]),  # false alarms belong to whose segment it is
    ],
)
def test_events_by_hand(told: list[tuple[float, str, float]], hits: list[int], false_alarms: list[int]) -> None:
    counts = streams.count_events(BY_HAND, [track_of(*told)], HALF)
    assert counts.groups.tolist() == ["anna", "bert"]
    assert (counts.positives.tolist(), counts.seconds.tolist()) == ([2, 1], [6.0, 4.0])
    assert counts.hits[0, :, 0].tolist() == hits
    assert counts.false_alarms[0, :, 0].tolist() == false_alarms
    assert counts.hits[0, :, 1].sum() == counts.false_alarms[0, :, 1].sum() == 0


def test_rates_of_a_stream_by_hand() -> None:
    """Two of three found, one false alarm in ten seconds: 360 an hour, and a third of the detections."""
    counts = streams.count_events(BY_HAND, [track_of((1.2, "one", 0.9), (4.2, "one", 0.9), (9.0, "one", 0.9))], HALF)
    found = counts.totals().at(0)
    assert (found.miss_rates(), found.alarms_per_hour(), found.discovery_rates()) == pytest.approx((1 / 3, 360, 1 / 3))


def test_each_threshold_and_run_is_counted_as_if_alone() -> None:
    """The oracle walks through the steps of random tracks one by one, as the detector does."""
    rng = np.random.default_rng(0)
    frames = np.arange(78, 998, 3)
    tracks = [detector.Track(frames, np.log(rng.random((len(frames), 2)) ** 3)) for _ in range(2)]
    thresholds = np.append(np.log([0.2, 0.6, 0.9, 0.99]), np.inf)
    counts = streams.count_events(BY_HAND, tracks, thresholds, lockout=40)
    for run, track in enumerate(tracks):
        for at, threshold in enumerate(thresholds):
            hits, alarms, silent, done = [0, 0], [0, 0], 0, set()
            for frame, scores in zip(track.frames, track.scores, strict=True):
                if frame < silent or scores.max() < threshold:
                    continue
                silent, now = frame + 40, (frame * 160 + 400) / 16000
                name = BY_HAND.keywords[scores.argmax()]
                open_now = [e for e in BY_HAND.events if e.keyword == name and e.start_s <= now <= e.end_s + 0.5]
                if open_now and open_now[0] not in done:
                    done.add(open_now[0])
                    hits[open_now[0].group == "bert"] += 1
                else:
                    alarms[int(now >= 6.0)] += 1
            assert counts.hits[run, :, at].tolist() == hits
            assert counts.false_alarms[run, :, at].tolist() == alarms
    assert counts.false_alarms[:, :, 0].min() > 0


def test_runs_and_groups_of_a_stream_go_into_intervals() -> None:
    good, late = track_of((1.2, "one", 0.9), (7.2, "two", 0.9)), track_of((3.0, "one", 0.9))
    counts = streams.count_events(BY_HAND, [good, late], HALF)
    found = intervals.interval(lambda totals: totals.at(np.array([0, 0])).alarms_per_hour(), counts, draws=100)
    assert found.value == pytest.approx(3600 / 20)
    assert found.low <= found.value <= found.high


def test_an_hour_of_all_thresholds_is_counted_in_seconds() -> None:
    """45 minutes, six keywords, 200 thresholds; the bound leaves room for a busy machine."""
    rng, frames = np.random.default_rng(0), np.arange(0, 45 * 6000, 3)
    keywords = tuple("abcdef")
    events = tuple(streams.Event(keywords[at % 6], 4.0 * at, 4.0 * at + 0.6, "g") for at in range(600))
    segments = (streams.Segment(0.0, 2700.0, "g", "keyword"),)
    stream = streams.Stream(np.broadcast_to(np.float32(0), 2700 * RATE), keywords, events, segments)
    track = detector.Track(frames, np.log(rng.random((len(frames), 6))))
    begin = time.perf_counter()
    streams.count_events(stream, [track], np.append(np.linspace(-3.0, 0.0, 199), np.inf))
    assert time.perf_counter() - begin < 20.0


def test_no_events_are_counted_too() -> None:
    silent = dataclasses.replace(BY_HAND, events=())
    counts = streams.count_events(silent, [track_of((1.2, "one", 0.9))], HALF)
    assert (counts.positives.sum(), counts.hits.sum(), counts.false_alarms.sum()) == (0, 0, 1)
