"""From phrases to a trained model: synthetic speech, datasets, augmentation, training, evaluation, command line.

Everything runs on synthetic speech of a few voices. Where recordings are at hand, named by SUBBYTE_DATA or in
../shared/data beside the repository, the front end is also checked on them.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from subbyte.keyword_spotting import __main__ as command
from subbyte.keyword_spotting import (
    alignment,
    augment,
    data,
    demo,
    evaluate,
    features,
    metrics,
    models,
    synthesize,
    train,
)

PHRASES = {"alexa": "alexa", "view_glass": "view glass"}
QUICK = train.TrainingRecipe(windows=2048, updates=176, batch_size=128)


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of two synthetic phrases in ten voices."""
    folder = tmp_path_factory.mktemp("speech")
    return synthesize.synthesize(folder, PHRASES, speaker_count=10, takes=2, noises=10)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the test session's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def dataset(speech: Path) -> data.Dataset:
    return data.Dataset.load(speech)


@pytest.fixture(scope="session")
def trained(dataset: data.Dataset) -> dict[str, train.Trained]:
    return {name: train.train(name, dataset, seed=1, recipe=QUICK) for name in ("M0", "M4")}


@pytest.fixture(scope="session")
def recordings() -> Path:
    named = os.environ.get("SUBBYTE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "wakewords" / "clips.csv").is_file():
        pytest.skip("no recordings: set SUBBYTE_DATA to a data folder")
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "clips.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.once
def test_the_package_imports_without_tensorflow() -> None:
    code = "import sys, subbyte.keyword_spotting; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Synthetic speech


@pytest.mark.once
def test_voices_differ_and_speed_is_speed() -> None:
    slow, fast = (synthesize.speak("smart mirror", synthesize.Voice("en-us", "m1", rate=rate)) for rate in (120, 240))
    assert len(slow) > 1.4 * len(fast)
    assert 0.3 < len(fast) / features.SAMPLE_RATE < 1.5
    spoken = {synthesize.speak("alexa", synthesize.Voice(*speaker)).tobytes() for speaker in synthesize.speakers(20)}
    assert len(spoken) == 20


@pytest.mark.once
def test_unknown_voices_and_too_many_speakers_are_named() -> None:
    with pytest.raises(ValueError, match="no voice 'tlh\\+nobody'"):
        synthesize.speak("alexa", synthesize.Voice("tlh", "nobody"))
    with pytest.raises(ValueError, match="1 to 104"):
        synthesize.speakers(105)
    assert len(set(synthesize.speakers(104))) == 104


@pytest.mark.once
@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_falls_as_asked(slope: float) -> None:
    noise = synthesize.colored_noise(1 << 18, slope, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [np.log2(power[1 << bit : 2 << bit].mean()) for bit in range(6, 16)]
    assert np.polyfit(range(10), octaves, 1)[0] == pytest.approx(-slope, abs=0.1)


@pytest.mark.once
def test_a_synthetic_folder_keeps_voices_apart(speech: Path) -> None:
    rows = rows_of(speech / "wakewords")
    assert len(rows) == 10 * 2 * 2
    homes = {row["pseudo_speaker"]: row["split"] for row in rows}
    assert all(homes[row["pseudo_speaker"]] == row["split"] for row in rows + rows_of(speech / "running_speech"))
    assert sorted(homes.values()).count("train") == 6
    for row in rows:
        assert soundfile.info(speech / "wakewords" / row["path"]).frames == int(row["n_samples"])


@pytest.mark.once
def test_a_seed_writes_the_same_files_in_every_process(tmp_path: Path) -> None:
    code = "import sys; from subbyte.keyword_spotting import synthesize as s; s.synthesize(sys.argv[1], *%r)"
    arguments, contents = ({"alexa": "alexa"}, ("warm milk",), 5, 1, 2), []
    for folder in (tmp_path / "first", tmp_path / "second"):
        subprocess.run([sys.executable, "-c", code % (arguments,), str(folder)], check=True)
        contents.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")})
    assert len(contents[0]) == 5 + 5 + 2 + 3  # keywords, sentences, noises, two tables and the source
    assert contents[0] == contents[1]


# Datasets


@pytest.mark.once
def test_a_dataset_has_three_splits_and_says_where_it_comes_from(dataset: data.Dataset) -> None:
    assert dataset.keywords == ("alexa", "view_glass")
    assert dataset.classes == 3
    assert dataset.source == "40 recordings of synthetic speech, made by espeak-ng on this machine"
    assert {len(dataset.split(name).labels) for name in ("dev", "test")} == {8}
    assert len(dataset.train.labels) == 24 * len(data.SPEEDS)
    assert dataset.test.inputs().shape == (8, features.INPUTS)
    assert dataset.test.background().shape[1] == features.INPUTS


@pytest.mark.once
def test_the_cache_gives_the_same_dataset(speech: Path, dataset: data.Dataset, monkeypatch) -> None:
    monkeypatch.setattr(data, "_analyse", None)  # a call would fail
    again = data.Dataset.load(speech)
    np.testing.assert_array_equal(again.train.keywords, dataset.train.keywords)
    assert again.source == dataset.source


@pytest.mark.once
def test_inputs_are_the_features_of_the_audio_around_the_keyword(speech: Path, dataset: data.Dataset) -> None:
    for name, split in (("test", dataset.test), ("dev", dataset.dev)):
        rows = [row for row in rows_of(speech / "wakewords") if row["split"] == name]
        for row, inputs in zip(rows, split.inputs(), strict=True):
            audio = data.read_audio(speech / "wakewords" / row["path"])
            centre = round(alignment.keyword_centre(features.mel_energies(audio)))
            first = (centre - features.FRAMES // 2) * features.FRAME_STEP
            if 0 <= first <= len(audio) - features.WINDOW_SAMPLES:
                window = audio[first : first + features.WINDOW_SAMPLES]
                np.testing.assert_allclose(inputs, features.features(window), atol=1e-4)


@pytest.mark.once
def test_audio_at_another_rate_is_resampled(tmp_path: Path) -> None:
    def tone(rate: int) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)

    soundfile.write(tmp_path / "tone.wav", np.stack([tone(48_000)] * 2, axis=1), 48_000)
    audio = data.read_audio(tmp_path / "tone.wav")
    assert audio.shape == (16_000,)
    np.testing.assert_allclose(audio[500:-500], tone(16_000)[500:-500], atol=1e-3)


@pytest.mark.once
def test_takes_of_one_background_recording_stay_together() -> None:
    splits = [data.noise_split(Path(f"1-{index}-A.flac")) for index in range(500)]
    assert splits == [data.noise_split(Path(f"1-{index}-B.flac")) for index in range(500)]
    assert splits.count("train") == pytest.approx(300, abs=40)


def broken(speech: Path, folder: Path, old: str, new: str) -> Path:
    """A copy of the data folder with `old` replaced by `new` throughout wakewords/clips.csv."""
    shutil.copytree(speech, folder)
    table = folder / "wakewords" / "clips.csv"
    table.write_text(table.read_text().replace(old, new))
    return folder


@pytest.mark.once
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("keyword,", "word,", "lacks the column 'keyword'"),
        (",dev", ",validation", "'validation', not one of train, dev, test"),
        ("0_1.flac", "0_9.flac", "0_9.flac not found"),
        ("en-us+m1,train", "en-gb-x-rp+f4,dev", "stands in two splits"),
        (",dev", ",test", "no clips in the split 'dev'"),
    ],
)
def test_a_broken_table_is_named(speech: Path, tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        data.Dataset.load(broken(speech, tmp_path / "data", old, new))


@pytest.mark.once
def test_a_split_that_is_not_needed_may_be_empty(speech: Path, tmp_path: Path) -> None:
    folder, whole = broken(speech, tmp_path / "data", ",dev", ",test"), data.Dataset.load(speech)
    table = folder / "running_speech" / "clips.csv"
    table.write_text(table.read_text().replace(",dev", ",test"))
    found = data.Dataset.load(folder, needed=("test",))
    assert len(found.dev.labels) == len(found.dev.keywords) == len(found.dev.speech) == 0
    assert len(found.test.labels) == len(whole.test.labels) + len(whole.dev.labels)
    np.testing.assert_array_equal(found.train.keywords, whole.train.keywords)
    assert found.test.keywords.dtype == whole.test.keywords.dtype
    with pytest.raises(ValueError, match="no clips in the split 'dev'"):
        data.Dataset.load(folder)


@pytest.mark.once
def test_missing_folders_are_named(speech: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds wakewords/, running_speech/ and noise/"):
        data.Dataset.load(tmp_path)
    folder = broken(speech, tmp_path / "data", "", "")
    shutil.rmtree(folder / "noise")
    with pytest.raises(ValueError, match="no background sounds"):
        data.Dataset.load(folder)


# Augmentation

PLAIN = augment.Augmentation(shift=0, tempo=1.0, tract=0.0, gain=0.0, noisy=0.0, background=0.0)


@pytest.mark.once
def test_without_augmentation_training_windows_are_the_inputs(dataset: data.Dataset) -> None:
    windows, labels = augment.training_windows(dataset.train, 50, 3, PLAIN, seed=0)
    for window, label in zip(windows, labels, strict=True):
        same = np.abs(dataset.train.inputs() - window).max(axis=1) < 1e-5
        assert same.any()
        assert label in dataset.train.labels[same]


@pytest.mark.once
def test_gain_moves_every_band_alike(dataset: data.Dataset) -> None:
    plain, _ = augment.training_windows(dataset.train, 20, 3, PLAIN, seed=0)
    loud, _ = augment.training_windows(dataset.train, 20, 3, dataclasses.replace(PLAIN, gain=10.0), seed=0)
    plain, loud = (np.exp(values) - features.LOG_FLOOR for values in (plain, loud))
    change = np.where(plain > 1e-2, loud / plain, np.nan)
    assert np.nanmax(np.nanmax(change, axis=1) / np.nanmin(change, axis=1)) < 1.01
    assert np.nanmax(change) > 2.0
    assert np.nanmax(change) < 10.01


@pytest.mark.once
def test_noise_comes_at_the_asked_ratio(dataset: data.Dataset) -> None:
    settings = dataclasses.replace(PLAIN, noisy=1.0, snr=(10.0, 10.0), chatter=0.0)
    plain, _ = augment.training_windows(dataset.train, 200, 3, PLAIN, seed=0)
    noisy, _ = augment.training_windows(dataset.train, 200, 3, settings, seed=0)
    plain, noisy = (np.exp(values.astype(np.float64)).mean(axis=1) - features.LOG_FLOOR for values in (plain, noisy))
    np.testing.assert_allclose(noisy / plain, 1.1, rtol=0.01)


@pytest.mark.once
def test_classes_come_in_the_asked_shares_and_seeds_decide(dataset: data.Dataset) -> None:
    settings = augment.Augmentation(background=0.25)
    windows, labels = augment.training_windows(dataset.train, 1000, 3, settings, seed=1)
    assert np.isfinite(windows).all()
    assert np.bincount(labels)[2] == 250
    np.testing.assert_array_equal(augment.training_windows(dataset.train, 1000, 3, settings, seed=1)[0], windows)
    assert (augment.training_windows(dataset.train, 1000, 3, settings, seed=2)[0] != windows).any()


@pytest.mark.once
def test_masks_hide_runs_at_the_mean(dataset: data.Dataset) -> None:
    plain, _ = augment.training_windows(dataset.train, 200, 3, PLAIN, seed=0)
    masked, _ = augment.training_windows(
        dataset.train, 200, 3, dataclasses.replace(PLAIN, frames_masked=4, bands_masked=3), seed=0
    )
    before, after = (values.reshape(-1, features.KEPT_FRAMES, features.MEL_BINS) for values in (plain, masked))
    changed = before != after
    frames, bands = changed.all(axis=2).sum(axis=1), changed.all(axis=1).sum(axis=1)
    assert (frames.min(), frames.max(), bands.min(), bands.max()) == (0, 4, 0, 3)
    whole = changed.all(axis=2)[:, :, np.newaxis] | changed.all(axis=1)[:, np.newaxis]
    np.testing.assert_array_equal(changed, whole)  # nothing else is touched
    only_frames = (frames > 0) & (bands == 0)
    mean = before.mean(axis=(1, 2), keepdims=True)
    hidden = np.where(changed, after, mean)[only_frames]
    np.testing.assert_allclose(hidden, np.broadcast_to(mean[only_frames], hidden.shape), rtol=1e-4)


# Models


def test_m0_has_the_papers_size() -> None:
    """540-87-400-87-400-87-400-7: by hand, 223,780 weights, 7 biases, and 4 vectors of batch normalisation."""
    kernels = 540 * 87 + 3 * 87 * 400 + 2 * 400 * 87 + 400 * 7
    assert models.model("M0").count_params() == kernels + 7 + 4 * 3 * (87 + 400)


@pytest.mark.parametrize(("name", "weights"), [("M4", 223_780), ("M5", None), ("M6", None)])
def test_quantized_models_follow_their_plan(name: str, weights: int | None) -> None:
    built, plan = models.model(name, classes=7), models.ARCHITECTURES[name]
    dense = [layer for layer in built.layers if hasattr(layer, "kernel")]
    assert [layer.units for layer in dense] == [*plan.units, 7]
    assert tuple(layer.kernel_quantizer.bits for layer in dense) == plan.bits
    if weights:
        assert sum(int(np.prod(layer.kernel.shape)) for layer in dense) == weights


def test_m1_has_16_bit_activations_throughout() -> None:
    from subbyte import keras_layers as ql

    built = models.model("M1")
    quantizers = [layer for layer in built.layers if isinstance(layer, ql.activations.ActivationQuantizer)]
    assert [layer.bits for layer in quantizers] == [16] * 8
    assert {layer.deployment.input_bits for layer in built.layers if hasattr(layer, "kernel")} == {16}


def test_the_quantizer_can_be_another() -> None:
    from subbyte import keras_layers as ql

    built = models.model("M4", quantizer=ql.quantizers.Linear, bits=5)
    quantizers = [layer.kernel_quantizer for layer in built.layers if hasattr(layer, "kernel")]
    assert {(type(found), found.bits) for found in quantizers} == {(ql.quantizers.Linear, 5)}


@pytest.mark.parametrize("name", ["ds_cnn", "tc_resnet", "tc_resnet_wide"])
def test_convolutional_models_have_the_papers_layers(name: str) -> None:
    """Kernels by hand: as in MLPerf Tiny and arXiv 1904.03814, and wider, for 7 classes and 20 mel bands."""
    from subbyte import keras_layers as ql

    floating = models.model(name)
    assert floating.output_shape == (None, 7)
    quantized = models.model(name, bits=3)
    kernels = [layer for layer in quantized.layers if hasattr(layer, "kernel_quantizer")]
    by_hand = {
        "ds_cnn": 10 * 4 * 64 + 4 * (9 * 64 + 64 * 64) + 64 * 7,
        "tc_resnet": 3 * 20 * 16
        + sum(9 * a * b + 9 * b * b + a * b for a, b in ((16, 24), (24, 32), (32, 48)))
        + 48 * 7,
        "tc_resnet_wide": 3 * 20 * 32
        + sum(9 * a * b + 9 * b * b + a * b for a, b in ((32, 44), (44, 60), (60, 92)))
        + 92 * 7,
    }[name]
    assert sum(int(np.prod(layer.kernel.shape)) for layer in kernels) == by_hand
    if name != "ds_cnn":  # the classifier's bias, and behind every convolution 4 vectors of batch normalization
        channels = {"tc_resnet": 16 + 3 * (24 + 32 + 48), "tc_resnet_wide": 32 + 3 * (44 + 60 + 92)}[name]
        assert floating.count_params() == by_hand + 7 + 4 * channels <= 250_000
    bits = [layer.kernel_quantizer.bits for layer in kernels]
    assert (bits[0], set(bits[1:-1]), bits[-1]) == (8, {3}, 8)
    assert {type(layer.kernel_quantizer) for layer in kernels} == {ql.quantizers.Linear}


def test_models_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="no model 'M7': choose one of M0, M1"):
        models.model("M7")
    with pytest.raises(ValueError, match="neither quantizer nor bits"):
        models.model("M0", bits=4)


# Training and evaluation


@pytest.mark.once
def test_stage_two_is_short() -> None:
    assert train.second_stage_updates(500_000, 0.07) == 35_000  # the paper's
    assert train.second_stage_updates(3, 0.07) == 1
    with pytest.raises(ValueError, match="at least 1, not 0"):
        train.TrainingRecipe(updates=0)
    with pytest.raises(ValueError, match="one of cosine, drop, constant, not 'linear'"):
        train.TrainingRecipe(schedule="linear")


@pytest.mark.once
def test_the_learning_rate_follows_the_kind_of_weights() -> None:
    from subbyte import keras_layers as ql

    assert train.learning_rate("M0") == train.LEARNING_RATES["float"]
    assert train.learning_rate("M4") == train.LEARNING_RATES["Tanh"]
    assert train.learning_rate("M4", ql.quantizers.Linear) == train.LEARNING_RATES["Linear"]
    assert train.learning_rate("M4", lambda bits: ql.quantizers.Tanh(bits)) == train.LEARNING_RATES["Linear"]


def test_a_model_trains_by_its_own_recipe(dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw(split: data.Split, windows: int, classes: int, settings: augment.Augmentation, seed: int) -> None:
        drawn.append((windows, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "training_windows", draw)
    for name, recipe in (("tc_resnet_wide", None), ("tc_resnet_wide", QUICK), ("tc_resnet", None), ("M4", None)):
        with pytest.raises(KeyboardInterrupt):
            train.train(name, dataset, recipe=recipe, bits=4)
    recommended, default = (
        (chosen.windows, chosen.augmentation) for chosen in (train.RECOMMENDED, train.TrainingRecipe())
    )
    assert drawn == [recommended, (2048, augment.Augmentation()), default, default]


@pytest.mark.parametrize("name", ["M0", "M4"])
def test_training_learns_and_a_file_gives_the_same_logits(
    name: str, trained: dict[str, train.Trained], dataset: data.Dataset, tmp_path: Path
) -> None:
    found = trained[name]
    raw = np.concatenate([dataset.dev.inputs(), dataset.test.inputs()])
    logits = evaluate.keras_logits(found.model, found.normalization(raw))
    assert logits.shape == (16, 3)
    assert metrics.keyword_accuracy(logits, np.append(dataset.dev.labels, dataset.test.labels)) >= 0.75
    found.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(evaluate.file_logits(tmp_path / "model.keras", raw), logits)


IN_LEGS = train.TrainingRecipe(windows=512, updates=400, batch_size=16, dropout=0.0)  # they end at 200, 400 and 428
SMALL = models.Architecture((8,), (4, 4))


@pytest.fixture(scope="module")
def whole(dataset: data.Dataset) -> list[np.ndarray]:
    """The weights that a training in legs ends with when nothing interrupts it."""
    return train.train(SMALL, dataset, 2, IN_LEGS).model.get_weights()


@pytest.mark.parametrize("stop_after", [1, 3])
def test_an_interrupted_training_goes_on_where_it_stood(
    dataset: data.Dataset, whole: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    def run(recipe: train.TrainingRecipe = IN_LEGS) -> train.Trained:
        return train.train(SMALL, dataset, 2, recipe, state=tmp_path / "state")

    save, saved, fitted = train._State.save, [], []

    def save_and_stop(self: train._State, title: str, network: object, updates: int) -> None:
        save(self, title, network, updates)
        saved.append(updates)
        if len(saved) == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(train._State, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert saved == [200, 400, 428][:stop_after]
    batches = train._Training._batches
    monkeypatch.setattr(train._Training, "_batches", lambda self, leg: fitted.append(leg) or batches(self, leg))
    run(dataclasses.replace(IN_LEGS, updates=20))  # another training: it does not take up this state
    assert fitted == [range(0, 20), range(20, 21)]
    fitted.clear()
    resumed = run().model
    assert fitted == [range(0, 200), range(200, 400), range(400, 428)][stop_after:]
    for after, expected in zip(resumed.get_weights(), whole, strict=True):
        np.testing.assert_array_equal(after, expected)
    assert not (tmp_path / "state").exists()


@pytest.mark.once
@pytest.mark.parametrize("name", ["tc_resnet", "tc_resnet_wide"])
def test_a_quantized_convolutional_model_starts_from_a_float_one(
    name: str, dataset: data.Dataset, tmp_path: Path
) -> None:
    from subbyte import keras_layers as ql
    from subbyte.converter import convert

    recipe = dataclasses.replace(QUICK, updates=88)
    floating = train.train(name, dataset, seed=1, recipe=recipe)
    found = train.train(name, dataset, seed=1, recipe=recipe, bits=4, start=floating.model)
    assert ql.stage_of(found.model) == 2
    raw = np.concatenate([dataset.dev.inputs(), dataset.test.inputs()])
    labels = np.append(dataset.dev.labels, dataset.test.labels)
    for trained in (floating, found):
        logits = evaluate.keras_logits(trained.model, trained.normalization(raw))
        assert metrics.keyword_accuracy(logits, labels) >= 0.75
    found.save(tmp_path / "model.keras")
    (tmp_path / "model.tflite").write_bytes(convert(tmp_path / "model.keras").tflite)
    packed = evaluate.file_logits(tmp_path / "model.tflite", raw)
    # The mean over time is a stock op, which rounds in its own way: a step of the logits here and there.
    np.testing.assert_allclose(packed, evaluate.file_logits(tmp_path / "model.keras", raw), atol=0.26)


@pytest.mark.once
def test_a_report_is_a_table(dataset: data.Dataset) -> None:
    found = evaluate.report(9.0 * np.eye(3)[dataset.test.labels], dataset.test)
    assert (found.accuracy.value, found.misses[0].value, found.clips, found.speakers) == (1.0, 0.0, 8, 2)
    assert evaluate.report_table([("perfect", found)], "title").row_count == 1


@pytest.mark.once
def test_values_become_codes_half_to_even() -> None:
    details = {"quantization": (0.5, 10), "dtype": np.int8}
    np.testing.assert_array_equal(evaluate.quantize(np.array([0.25, 0.75, -99.0, 99.0]), details), [10, 12, -128, 127])
    same = evaluate.quantize(np.array([0.25]), {"quantization": (0.0, 0), "dtype": np.float32})
    assert same.dtype == np.float32


def test_wrong_model_files_are_named(dataset: data.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.keras or \.tflite"):
        evaluate.file_logits("model.h5", dataset.test.inputs())
    with pytest.raises(ValueError, match="not found"):
        evaluate.file_logits(tmp_path / "model.keras", dataset.test.inputs())


def test_the_command_trains_and_evaluates(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "recipe_for", lambda name: QUICK)
    model, where = str(tmp_path / "m0.keras"), f"--data_dir={speech}"
    assert command.main(["train", "--model=M0", f"--output={model}", "--updates=16", where]) == 0
    assert command.main(["evaluate", f"--model={model}", where]) == 0
    told = capsys.readouterr().out
    assert "synthetic speech" in told.replace("\n", " ")
    assert "keyword accuracy" in told.replace("\n", " ")


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["evaluate", "--model=m.keras", f"--data_dir={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("keyword_spotting evaluate: ")
    assert told.count("\n") == 1


@pytest.mark.once
def test_the_demonstration_packs_and_finds_no_difference(
    trained: dict[str, train.Trained], dataset: data.Dataset, tmp_path: Path
) -> None:
    lines = demo.compare(trained["M0"], trained["M4"], dataset.test, tmp_path)
    assert [line.different for line in lines] == [None, 0, 0, 0]
    assert lines[0].file_bytes > 6 * lines[3].file_bytes
    assert demo.table(lines, dataset.source).row_count == 4
    raw = dataset.test.inputs()
    for name in ("kws.tflite", "kws_int8.tflite"):
        np.testing.assert_array_equal(
            evaluate.file_logits(tmp_path / name, raw), evaluate.file_logits(tmp_path / "kws.keras", raw)
        )
    stock, keras = (evaluate.file_logits(tmp_path / name, raw) for name in ("float.tflite", "float.keras"))
    np.testing.assert_allclose(stock, keras, atol=1e-3)  # float sums in another order


# Recordings


@pytest.mark.once
def test_the_front_end_agrees_on_recordings(recordings: Path) -> None:
    rows = rows_of(recordings / "wakewords")
    clips = [data.read_audio(recordings / "wakewords" / row["path"]) for row in rows[:: len(rows) // 50]]
    windows = np.stack([np.resize(clip, features.WINDOW_SAMPLES) for clip in clips])
    expected = np.stack([features.features(window) for window in windows])
    np.testing.assert_allclose(features.tf_features(windows).numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.once
def test_keywords_of_recordings_lie_in_their_window(recordings: Path) -> None:
    """Most of the energy above the quiet is in the 0.81 s around the centre that the rule finds."""
    inside = []
    for row in rows_of(recordings / "wakewords")[::40]:
        energies = features.mel_energies(data.read_audio(recordings / "wakewords" / row["path"]))
        context = data.keyword_context(energies)
        inside.append(context[data.MARGIN : -data.MARGIN, 2:].sum() / context[:, 2:].sum())
    assert np.median(inside) > 0.95
