"""The front end: numpy against TensorFlow and scipy, and the rule that finds the keyword."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from subbyte.keyword_spotting import alignment, features

RNG = np.random.default_rng(0)
TIME = np.arange(features.WINDOW_SAMPLES) / features.SAMPLE_RATE


def speech_like() -> np.ndarray:
    """A buzz through two moving resonances, with pauses: loud and silent bands in one clip."""
    pulses = (np.arange(len(TIME)) % 130 == 0).astype(np.float64)
    voiced = sum(scipy.signal.lfilter([1.0], resonance, pulses) for resonance in ([1, -1.6, 0.9], [1, -0.4, 0.95]))
    return 0.1 * voiced * np.clip(np.sin(9 * TIME), 0.0, 1.0) + 1e-4 * RNG.standard_normal(len(TIME))


CLIPS = {
    "speech": speech_like(),
    "silence": np.zeros(features.WINDOW_SAMPLES),
    "16-bit rounding noise": RNG.uniform(-0.5, 0.5, features.WINDOW_SAMPLES) / 32768,
    "full-scale tone": np.sin(2 * np.pi * 440.3 * TIME),
    "full-scale square": np.sign(np.sin(2 * np.pi * 100.0 * TIME)),
    "clipped noise": np.clip(9 * RNG.standard_normal(features.WINDOW_SAMPLES), -1, 1),
    "one click": np.eye(1, features.WINDOW_SAMPLES, 5000)[0],
}


@pytest.mark.parametrize("name", CLIPS)
def test_tensorflow_equals_numpy(name: str) -> None:
    audio = CLIPS[name].astype(np.float32)
    expected = features.features(audio)
    assert expected.shape == (features.INPUTS,)
    np.testing.assert_allclose(features.tf_features(audio[np.newaxis]).numpy()[0], expected, rtol=0, atol=1e-4)


def test_tensorflow_features_work_in_a_pipeline() -> None:
    import tensorflow as tf

    clips = np.stack(list(CLIPS.values())).astype(np.float32)
    batches = list(tf.data.Dataset.from_tensor_slices(clips).batch(4).map(features.tf_features))
    assert [batch.shape for batch in batches] == [(4, features.INPUTS), (3, features.INPUTS)]


def test_mel_matrix_is_tensorflows() -> None:
    import tensorflow as tf

    expected = tf.signal.linear_to_mel_weight_matrix(
        features.MEL_BINS,
        features.FFT_LENGTH // 2 + 1,
        features.SAMPLE_RATE,
        features.LOWEST_HZ,
        features.HIGHEST_HZ,
        tf.float64,
    )
    np.testing.assert_allclose(features.mel_matrix(), expected.numpy(), atol=1e-9)


def test_energies_are_scipys_spectrogram_through_the_mel_matrix() -> None:
    audio = CLIPS["speech"]
    window = scipy.signal.get_window("hann", features.FRAME_LENGTH)
    np.testing.assert_allclose(features.hann_window(), window, atol=1e-12)
    _, _, power = scipy.signal.spectrogram(
        audio,
        window=window,
        noverlap=features.FRAME_LENGTH - features.FRAME_STEP,
        nfft=features.FFT_LENGTH,
        detrend=False,
        scaling="spectrum",
        mode="psd",
    )
    power[1:-1] /= 2.0  # scipy adds the negative frequencies
    expected = (power * window.sum() ** 2).T @ features.mel_matrix()
    np.testing.assert_allclose(features.mel_energies(audio), expected, rtol=1e-5, atol=1e-12)


def test_a_window_is_81_frames_and_every_third_is_kept() -> None:
    audio = CLIPS["speech"]
    energies = features.mel_energies(audio)
    assert energies.shape == (features.FRAMES, features.MEL_BINS)
    expected = features.log_mel(energies[::3]).ravel()
    np.testing.assert_array_equal(features.features(audio), expected)


def test_features_are_the_cut_window_of_a_longer_recording() -> None:
    """Training cuts windows from the energies of a whole recording, a device cuts the audio."""
    audio = np.concatenate([CLIPS["clipped noise"], CLIPS["speech"]]).astype(np.float32)
    first = 37
    cut = alignment.cut_windows(features.mel_energies(audio), np.array([first]))[0]
    samples = audio[first * features.FRAME_STEP :][: features.WINDOW_SAMPLES]
    np.testing.assert_allclose(features.features(samples), features.log_mel(cut).ravel(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(100,), (13200, 1), (13201,)])
def test_wrong_audio_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="13200 samples"):
        features.features(np.zeros(shape))
    if shape == (100,):
        with pytest.raises(ValueError, match="at least 400"):
            features.mel_energies(np.zeros(shape))


def test_normalization_gives_zero_mean_and_unit_deviation_and_survives_a_file(tmp_path) -> None:
    raw = (RNG.standard_normal((500, features.INPUTS)) * 3.0 + 5.0).astype(np.float32)
    normalization = features.Normalization.fit(raw)
    bands = normalization(raw).reshape(-1, features.MEL_BINS)
    np.testing.assert_allclose(bands.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(bands.std(axis=0), 1.0, atol=1e-4)
    normalization.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(features.Normalization.load(tmp_path / "model.npz")(raw), normalization(raw))


def test_a_constant_band_does_not_divide_by_zero() -> None:
    raw = np.zeros((10, features.INPUTS), np.float32)
    assert np.isfinite(features.Normalization.fit(raw)(raw)).all()


def test_wrong_normalization_files_are_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="not found"):
        features.Normalization.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match="mean and deviation"):
        features.Normalization.load(tmp_path / "other.npz")


def recording(first: int, last: int, frames: int = 300, level: float = 1.0, quiet: float = 1e-3) -> np.ndarray:
    """Mel energies of a quiet recording that is loud in the frames first..last."""
    energies = np.full((frames, features.MEL_BINS), quiet) * RNG.uniform(0.5, 1.5, (frames, features.MEL_BINS))
    energies[first : last + 1] = level
    return energies.astype(np.float32)


@pytest.mark.parametrize(("first", "last"), [(0, 60), (100, 180), (150, 199), (239, 299)])
@pytest.mark.parametrize("level", [0.05, 1.0, 1000.0])
def test_the_centre_lies_midway_at_any_level(first: int, last: int, level: float) -> None:
    assert alignment.keyword_centre(recording(first, last, level=level)) == pytest.approx((first + last) / 2, abs=2.5)


def test_a_click_far_away_does_not_move_the_centre() -> None:
    energies = recording(100, 170)
    energies[250:252] = 100.0
    assert alignment.keyword_centre(energies) == pytest.approx(135, abs=2.5)


def test_a_pause_within_the_keyword_does_not_move_the_centre() -> None:
    energies = recording(100, 180)
    energies[125:140] = 1e-3
    assert alignment.keyword_centre(energies) == pytest.approx(140, abs=3)


@pytest.mark.parametrize("frames", [1, 2, 50, 300])
def test_without_a_keyword_the_centre_is_the_middle(frames: int) -> None:
    assert alignment.keyword_centre(np.ones((frames, features.MEL_BINS))) == (frames - 1) / 2
