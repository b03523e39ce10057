"""The streaming detector and the command `listen`.

Most of it runs on a model made of numpy, whose outputs are known; what concerns real models runs on one that was
trained for a few seconds on two synthetic phrases.
"""

from __future__ import annotations

import gc
import math
import resource
import subprocess
import sys
import tracemalloc
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from benchmarks import streaming as benchmark
from subbyte.keyword_spotting import __main__ as command
from subbyte.keyword_spotting import (
    data,
    detector,
    evaluate,
    features,
    listen,
    metrics,
    models,
    streams,
    synthesize,
    train,
)

RNG = np.random.default_rng(0)
PHRASES = {"alexa": "alexa", "view_glass": "view glass"}
RATE = features.SAMPLE_RATE
PLAIN = features.Normalization(np.zeros(features.MEL_BINS, np.float32), np.ones(features.MEL_BINS, np.float32))


class Numpy:
    """An interpreter of logits = weights @ inputs, with the tensors of a TFLite model."""

    def __init__(self, keywords: int = 2, dtype: Any = np.float32, inputs: int = features.INPUTS) -> None:
        rng = np.random.default_rng(3)
        self.weights = (rng.standard_normal((keywords + 1, inputs)) * 0.02).astype(np.float32)
        self.seen: list[np.ndarray] = []
        self.dtype = np.dtype(dtype)
        self.scale = 0.0 if dtype == np.float32 else 0.1 if dtype == np.int8 else 0.001

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self) -> list[dict[str, Any]]:
        zero_point = -3 if self.dtype == np.int8 else 0
        return [self._details((1, self.weights.shape[1]), (self.scale, zero_point))]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [self._details((1, len(self.weights)), (0.0, 0)) | {"dtype": np.float32}]

    def _details(self, shape: tuple[int, ...], quantization: tuple[float, int]) -> dict[str, Any]:
        return {"index": 0, "shape": np.array(shape, np.int32), "dtype": self.dtype.type, "quantization": quantization}

    def set_tensor(self, index: int, values: np.ndarray) -> None:
        assert values.dtype == self.dtype
        self.seen.append(values[0].copy())

    def invoke(self) -> None:
        pass

    def get_tensor(self, index: int) -> np.ndarray:
        values = self.seen[-1]
        if self.scale:
            values = (values.astype(np.float32) - self.get_input_details()[0]["quantization"][1]) * self.scale
        return (self.weights @ values.astype(np.float32))[np.newaxis]


def hear(interpreter: Any | None = None, **settings: Any) -> detector.StreamingDetector:
    return detector.StreamingDetector(interpreter or Numpy(), PLAIN, ("a", "b"), **settings)


def sound(seconds: float, seed: int = 1) -> np.ndarray:
    """Noise whose level wanders."""
    rng, samples = np.random.default_rng(seed), round(seconds * RATE)
    knots = np.arange(0, samples + 4000, 4000)
    level = np.exp(np.interp(np.arange(samples), knots, rng.normal(-4, 2, len(knots))))
    return (level * rng.standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder of two phrases in ten voices, and a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield synthesize.synthesize(tmp_path_factory.mktemp("speech"), PHRASES, speaker_count=10, noises=10)


@pytest.fixture(scope="module")
def dataset(speech: Path) -> data.Dataset:
    return data.Dataset.load(speech)


@pytest.fixture(scope="module")
def model(dataset: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed model by the commands that the documentation names: train, then convert-to-tflite."""
    from subbyte.converter import convert

    folder = tmp_path_factory.mktemp("model")
    recipe = train.TrainingRecipe(windows=2048, updates=176, batch_size=128)
    small = models.Architecture((48,), (4, 4))
    train.train(small, dataset, seed=1, recipe=recipe).save(folder / "kws.keras")
    (folder / "kws.tflite").write_bytes(convert(folder / "kws.keras", target="packed").tflite)
    return folder / "kws.tflite"


# The front end


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 50])
def test_a_frame_has_the_energies_of_the_whole_recording(frames: int) -> None:
    audio = sound(2.0)
    whole = features.mel_energies(audio)
    samples = (frames - 1) * features.FRAME_STEP + features.FRAME_LENGTH
    parts = [features.mel_energies(audio[at * features.FRAME_STEP :][:samples]) for at in range(0, len(whole), frames)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("chunk", [1, 159, 160, 401, 4096, 10**6])
def test_chunks_of_any_size_give_the_same_windows_and_scores(chunk: int) -> None:
    """The oracle is the whole recording at once, and its windows cut by hand."""
    audio = sound(1.5 if chunk == 1 else 4.0)
    net = Numpy()
    streaming = hear(net, threshold=-math.inf, lockout=0)
    found = [one for at in range(0, len(audio), chunk) for one in streaming.process(audio[at : at + chunk])]
    energies = features.mel_energies(audio)
    windows = [features.log_mel(energies[at : at + 79 : 3]).ravel() for at in range(0, len(energies) - 78, 3)]
    np.testing.assert_array_equal(net.seen, windows)
    means = metrics.moving_average(np.stack([net.weights @ window for window in windows]))
    logits = np.stack([net.weights @ window for window in windows])
    for step, one in enumerate(found):
        means = metrics.moving_average(logits[step : step + 5])[:2]
        assert (one.keyword, one.score) == ("ab"[means.argmax()], means.max())
        assert one.time_s == pytest.approx((step * 3 + 4 * 3 + 78) * 0.01 + 0.025)
    assert len(found) == len(windows) - 4


def test_the_track_has_the_scores_of_process() -> None:
    audio = sound(6.0)
    streaming = hear(threshold=-math.inf, lockout=0)
    streaming.process(audio[:7777])
    track = streaming.track(features.mel_energies(audio))  # forgets the 7777 samples
    again = streaming.process(audio)
    np.testing.assert_array_equal(track.scores.max(axis=1), [found.score for found in again])
    np.testing.assert_array_equal(detector.seconds(track.frames), [found.time_s for found in again])
    assert len(hear().track(features.mel_energies(audio[:8000])).frames) == 0


@pytest.mark.parametrize(("hop", "outputs"), [(1, 15), (2, 8), (3, 5), (5, 3), (30, 1)])
def test_the_hop_sets_the_steps_and_how_many_outputs_are_averaged(hop: int, outputs: int) -> None:
    track = hear(hop=hop).track(features.mel_energies(sound(3.0)))
    assert set(np.diff(track.frames)) == {hop}
    assert track.frames[0] == 78 + hop * (outputs - 1)


def test_windows_and_average_are_those_of_the_clips(dataset: data.Dataset, model: Path) -> None:
    """At a clip's centre a packed model gives exactly what evaluation of clips gives: same windows, same mean."""
    streaming = listen.load_detector(model)
    expected = metrics.moving_average(evaluate.file_logits(model, dataset.test.views()))[:, :-1]
    first = data.MARGIN + data.VIEWS[0]  # the first frame of the first of the windows
    for context, scores in zip(dataset.test.keywords, expected, strict=True):
        track = streaming.track(context[first % 3 :])
        newest = data.MARGIN + data.VIEWS[-1] + detector.SPAN - 1 - first % 3
        np.testing.assert_array_equal(track.scores[track.frames == newest][0], scores)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int16])
def test_inputs_are_quantized_as_the_model_asks(dtype: Any) -> None:
    net, audio = Numpy(dtype=dtype), 0.1 * sound(1.2)
    hear(net).process(audio)
    window = features.log_mel(features.mel_energies(audio)[:79:3]).ravel()
    np.testing.assert_array_equal(net.seen[0], evaluate.quantize(window, net.get_input_details()[0]))


# Decisions


class Script(Numpy):
    """An interpreter whose posteriors are written down: [steps, 3], the last row for ever."""

    def __init__(self, posteriors: list[list[float]]) -> None:
        super().__init__()
        self.script = np.log(np.array(posteriors, np.float32))

    def get_tensor(self, index: int) -> np.ndarray:
        return self.script[min(len(self.seen), len(self.script)) - 1 :][:1]


QUIET_STEP = [0.01, 0.01, 0.98]


def test_the_average_crosses_the_threshold_when_arithmetic_says_so() -> None:
    """Posteriors of "b" of 0.9 from step 10 on: means .01, .188, .366, .544 after 1, 2, 3 of them."""
    script = [QUIET_STEP] * 10 + [[0.01, 0.9, 0.09]] * 5 + [QUIET_STEP]
    found = hear(Script(script), threshold=math.log(0.5)).process(sound(4.0))
    assert [(one.keyword, round(math.exp(one.score), 3)) for one in found] == [("b", 0.544)]
    assert found[0].time_s == pytest.approx((78 + 3 * 12) * 0.01 + 0.025)
    assert str(found[0]) == f"{1.165:9.2f} s  b  0.544"
    assert hear(Script(script), threshold=math.log(0.91)).process(sound(4.0)) == []


def test_lock_out_is_counted_in_frames_from_the_detection() -> None:
    """Always sure: told at the first step, and again whenever the lock-out has passed."""
    for lockout, apart in ((0, 3), (1, 3), (3, 3), (4, 6), (99, 99), (100, 102)):
        found = hear(Script([[0.98, 0.01, 0.01]]), lockout=lockout).process(sound(6.0))
        np.testing.assert_allclose(np.diff([one.time_s for one in found]), apart / 100)


def test_detections_are_those_that_streams_count() -> None:
    """`process` decides on-line, `streams.fired` for a whole track: the same steps at every threshold."""
    audio = sound(30.0)
    track = hear().track(features.mel_energies(audio))
    best = track.scores.max(axis=1)
    counts = set()
    for quantile in (0.0, 0.3, 0.6, 0.9, 0.99, 1.0):
        threshold = float(np.quantile(best, quantile))
        steps = streams.fired(track.frames, best, threshold)
        found = hear(threshold=threshold).process(audio)
        np.testing.assert_array_equal(detector.seconds(track.frames[steps]), [one.time_s for one in found])
        counts.add(len(found))
    assert len(counts) > 3


def test_nothing_survives_a_second_but_the_lock_out() -> None:
    """After whatever was heard, garbage too, a second of the same audio gives the same scores, bit for bit."""
    after = sound(3.0, seed=9)
    rubbish = np.full(1600, np.nan, np.float32)
    streams_before = [np.zeros(16000, np.float32), 100.0 * sound(1.0), np.concatenate([sound(0.9), rubbish])]
    scores = []
    for before in streams_before:
        net = Numpy()
        streaming = hear(net, threshold=-math.inf, lockout=0)
        with np.errstate(invalid="ignore"):
            found = streaming.process(np.concatenate([before, after]))
        scores.append([one.score for one in found if one.time_s > 1.0 + 1.0])
    assert len(scores[0]) > 50
    assert scores[0] == scores[1] == scores[2]


def test_reset_begins_a_new_stream() -> None:
    audio, streaming = sound(3.0), hear(threshold=-math.inf)
    first = streaming.process(audio)
    assert streaming.process(audio) != first
    streaming.reset()
    assert streaming.process(audio) == first


def test_wrong_models_settings_and_audio_are_named() -> None:
    with pytest.raises(ValueError, match=r"takes \[1, 490\], not \[1, 540\]"):
        hear(Numpy(inputs=490))
    with pytest.raises(ValueError, match=r"has 5 outputs, but there are 2 keywords \(a, b\) and other"):
        hear(Numpy(keywords=4))
    with pytest.raises(ValueError, match="does not name the keywords"):
        detector.StreamingDetector(Numpy(), PLAIN)
    with pytest.raises(ValueError, match="at least one frame"):
        hear(hop=0)
    with pytest.raises(ValueError, match="must be a number"):
        hear(threshold=math.nan)
    for wrong in (np.zeros((3, 2), np.float32), np.zeros(1600, np.int16)):
        with pytest.raises(ValueError, match="must be floating-point"):
            hear().process(wrong)


def test_names_travel_with_the_normalization(tmp_path: Path, dataset: data.Dataset, model: Path) -> None:
    assert features.Normalization.load(model.with_suffix(".npz")).keywords == dataset.keywords
    PLAIN.save(tmp_path / "old.npz")  # without names, as files of old are
    assert features.Normalization.load(tmp_path / "old.npz").keywords == ()
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="no normalization file"):
        features.Normalization.load(tmp_path / "text.npz")


# Memory


def test_ten_minutes_take_constant_memory() -> None:
    """Python's memory after each minute from the second on is that of the second, and its peak too.

    16 KB is room for what Python keeps for itself: a minute of audio is 3.8 MB, of features 480 KB, of outputs 24 KB.
    numpy leaves an object of 49 bytes for the garbage collector whenever it makes a sliding window, so that is called.
    """
    net = Script([QUIET_STEP])
    streaming = hear(net)
    minute = [sound(1.0, seed) for seed in range(3)]
    after, peaks = [], []
    tracemalloc.start()
    try:
        for _ in range(10):
            tracemalloc.reset_peak()
            for second in range(60):
                net.seen[:-1] = []  # the model's own memory
                streaming.process(minute[second % 3])
            gc.collect()
            after.append(tracemalloc.get_traced_memory()[0])
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert max(after[1:]) - min(after[1:]) < 16_384, after
    assert max(peaks[1:]) - min(peaks[1:]) < 65_536, peaks


def test_ten_minutes_of_a_packed_model_leave_the_process_as_large_as_one(model: Path) -> None:
    """The peak of the process, native code included, grows by less than 2 MB; ten minutes of audio are 38 MB."""
    streaming = listen.load_detector(model)
    seconds = [sound(1.0, seed) for seed in range(3)]

    def minutes(count: int) -> Iterator[np.ndarray]:
        return (seconds[second % 3] for second in range(60 * count))

    listen.listen(streaming, minutes(1), lambda _: None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    usage = listen.listen(streaming, minutes(10), lambda _: None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2048
    assert usage.audio_s == 600.0
    assert 0.0 < usage.elapsed_s / usage.audio_s < 0.5  # real time with room for a busy machine


# The command


@pytest.fixture(scope="module")
def recording(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, streams.Stream]:
    """Test clips at known times, as a WAV file of 16 bits."""
    stream = streams.make_stream(data.Recordings.of("test", speech), kinds=["keyword"], seed=1)
    path = tmp_path_factory.mktemp("audio") / "stream.wav"
    soundfile.write(path, np.clip(stream.audio, -1.0, 1.0), RATE, subtype="PCM_16")
    return path, stream


def told(text: str) -> list[tuple[float, str]]:
    """The times and keywords of the lines that `listen` printed, and its last line's form checked."""
    *lines, last = text.splitlines()
    assert "s of audio, real-time factor 0." in last
    assert last.endswith("ms of processor time per second of audio")
    return [(float(line.split()[0]), line.split()[2]) for line in lines]


def test_listening_to_a_file_tells_its_keywords(
    model: Path, recording: tuple[Path, streams.Stream], capsys: pytest.CaptureFixture[str]
) -> None:
    path, stream = recording
    assert command.main(["listen", f"--model={model}", f"--wav={path}", "--threshold=0.5"]) == 0
    found = told(capsys.readouterr().out)
    heard = [
        any(event.start_s <= at <= event.end_s + 0.5 and name == event.keyword for at, name in found)
        for event in stream.events
    ]
    assert len(heard) == 8
    assert sum(heard) >= 6  # of a model trained for seconds, on voices that it has not heard


def test_a_file_of_another_rate_is_resampled_block_by_block(
    model: Path, recording: tuple[Path, streams.Stream], tmp_path: Path
) -> None:
    """The oracle is scipy's resampling of the whole; the two filters differ by some 1e-3 near the band's edge."""
    import scipy.signal

    time = np.arange(44_100 * 3) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * (300.0 + 400.0 * time) * time)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone], axis=1), 44_100, subtype="FLOAT")
    blocks = list(listen.file_blocks(tmp_path / "tone.wav"))
    assert max(map(len, blocks)) < 0.3 * RATE
    joined, expected = np.concatenate(blocks), scipy.signal.resample_poly(tone, 160, 441)
    assert abs(len(joined) - len(expected)) <= 1
    np.testing.assert_allclose(joined[500:47_000], expected[500:47_000], atol=2e-3)


class FakeSounddevice(types.ModuleType):
    """sounddevice with a microphone that hears an array and is then unplugged by the user."""

    class PortAudioError(Exception):
        pass

    def __init__(self, audio: np.ndarray, rates: tuple[int, ...] = (RATE,)) -> None:
        super().__init__("sounddevice")
        module = self

        class InputStream:
            def __init__(self, samplerate: int, channels: int, dtype: str, device: Any) -> None:
                assert (channels, dtype) == (1, "float32")
                if device == 99:
                    raise module.PortAudioError("Invalid device")
                module.opened, module.closed, self.at = samplerate, False, 0

            def __enter__(self) -> InputStream:
                return self

            def __exit__(self, *error: object) -> None:
                module.closed = True

            def read(self, samples: int) -> tuple[np.ndarray, bool]:
                block = audio[self.at : self.at + samples, np.newaxis]
                self.at += samples
                if len(block) == 0:
                    raise KeyboardInterrupt
                return block, False

        self.InputStream, self.rates, self.opened, self.closed = InputStream, rates, 0, False

    def check_input_settings(self, device: Any, channels: int, dtype: str, samplerate: int) -> None:
        if samplerate not in self.rates:
            raise self.PortAudioError("Invalid sample rate")

    def query_devices(self, device: Any, kind: str) -> dict[str, float]:
        return {"default_samplerate": float(self.rates[0])}


def test_a_microphone_hears_what_a_file_does(
    model: Path,
    recording: tuple[Path, streams.Stream],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, _ = recording
    common = ["listen", f"--model={model}", "--threshold=0.5"]
    assert command.main([*common, f"--wav={path}"]) == 0
    expected = told(capsys.readouterr().out)
    assert len(expected) >= 6
    fake = FakeSounddevice(soundfile.read(path, dtype="float32")[0])
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    assert command.main([*common, "--microphone"]) == 0  # until the user interrupts
    assert told(capsys.readouterr().out) == expected
    assert (fake.opened, fake.closed) == (RATE, True)
    assert command.main([*common, "--microphone", "--seconds=9.05"]) == 0
    assert told(capsys.readouterr().out) == [one for one in expected if one[0] < 9.05]
    assert command.main([*common, "--microphone", "--device=99"]) == 2
    assert capsys.readouterr().err == "keyword_spotting listen: microphone 99: Invalid device\n"


def test_a_microphone_that_cannot_do_16_khz_is_resampled() -> None:
    time = np.arange(48_000) / 48_000
    fake = FakeSounddevice(np.sin(2 * np.pi * 440 * time).astype(np.float32), rates=(48_000,))
    heard: list[np.ndarray] = []
    blocks = listen.microphone_blocks(None, fake)
    with pytest.raises(KeyboardInterrupt):
        heard.extend(blocks)
    joined = np.concatenate(heard)
    assert fake.opened == 48_000
    np.testing.assert_allclose(joined[500:], np.sin(2 * np.pi * 440 * np.arange(len(joined)) / RATE)[500:], atol=2e-3)


def test_listening_imports_no_tensorflow(model: Path, recording: tuple[Path, streams.Stream]) -> None:
    code = (
        "import sys; from subbyte.keyword_spotting.__main__ import main; status = main(sys.argv[1:]);"
        "sys.exit(status or 'tensorflow' in sys.modules or 'scipy' in sys.modules)"
    )
    arguments = ["listen", f"--model={model}", f"--wav={recording[0]}", "--seconds=2"]
    assert subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=none.tflite", "--wav=a.wav"], "model file none.tflite not found"),
        (["--model={keras}", "--wav=a.wav"], "is a Keras model: convert it first"),
        (["--model={text}", "--normalization={npz}", "--wav=a.wav"], "is no model that the interpreter runs"),
        (["--model={model}", "--normalization=none.npz", "--wav=a.wav"], "normalization file none.npz not found"),
        (["--model={model}", "--wav=none.wav"], "recording none.wav not found"),
        (["--model={model}", "--wav={text}"], "cannot be read"),
        (["--model={model}", "--wav={wav}", "--threshold=1.5"], "at most 1, not 1.5"),
        (["--model={model}", "--wav={wav}", "--keywords=one"], "has 3 outputs, but there are 1 keywords (one)"),
        (["--model={model}", "--wav={wav}", "--hop=0"], "at least one frame"),
        (["--model={model}", "--microphone"], "pip install 'subbyte[listen]'"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    flags: list[str],
    message: str,
    model: Path,
    recording: tuple[Path, streams.Stream],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # not installed
    (tmp_path / "text.tflite").write_text("no model, and no recording either")
    names = {
        "keras": model.with_suffix(".keras"),
        "text": tmp_path / "text.tflite",
        "npz": model.with_suffix(".npz"),
        "model": model,
        "wav": recording[0],
    }
    assert command.main(["listen", *(flag.format(**names) for flag in flags)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("keyword_spotting listen: ")
    assert message in told
    assert told.count("\n") == 1


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    with pytest.raises(ImportError, match=r"has 8000 samples a second, not 16000: pip install 'subbyte\[listen\]'"):
        list(listen.file_blocks(tmp_path / "a.wav"))


# The benchmark


def test_the_benchmark_compares_streaming_with_clips(
    model: Path, speech: Path, dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packed model's figures on two synthetic phrases: the first is exact, the others have their form checked."""
    lines = list(benchmark.agreement(str(model), dataset, str(speech), 0.5))
    assert lines[0] == "* at the centre of a clip: 8 of 8 clips have the same scores, bit for bit"
    cells = lines[-2].split(" | ")
    assert cells[1].endswith("of 8")
    assert float(cells[3]) >= 75.0  # at most two of eight clips lie at the edge of what surrounds them
    monkeypatch.setattr(benchmark, "BACKGROUNDS", (None,))
    table = list(benchmark.rates(str(model), str(speech)))
    assert [len(line.split(" | ")) for line in table[2:-1]] == [6, 6]
    assert "8 keywords in test" in table[-1]
