"""Features for published models, against numpy and scipy, and the table of their requantized files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import soundfile
from test_converter_tflite import Layer

from benchmarks import third_party

DATA = Path(os.environ.get("SUBBYTE_DATA", "nowhere"))
AUDIO = np.random.default_rng(0).normal(0, 0.1, (3, 16000)).astype(np.float32)


def frames(audio: np.ndarray, length: int, step: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(audio.astype(np.float64), length, axis=1)[:, ::step]


def mel_bands(spectrum: np.ndarray, low: float, high: float) -> np.ndarray:
    """40 triangles on the mel scale, 1127 ln(1 + f / 700); the constant component is in none."""

    def mel(hertz):
        return 1127 * np.log(1 + np.asarray(hertz) / 700)

    edges = np.linspace(mel(low), mel(high), 42)
    bins = mel(np.linspace(0, 8000, spectrum.shape[-1]))
    triangles = [np.interp(bins, edges[band : band + 3], [0, 1, 0]) for band in range(40)]
    return spectrum[..., 1:] @ np.array(triangles).T[1:]


def test_keyword_features_are_the_published_ones():
    audio = AUDIO / AUDIO.max(axis=1, keepdims=True)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(480) / 480)
    magnitude = np.abs(np.fft.rfft(frames(audio, 480, 320) * window, 512))
    log_mel = np.log(mel_bands(magnitude, 20, 4000) + 1e-6)
    expected = scipy.fft.dct(log_mel)[..., :10] / np.sqrt(2 * 40)
    found = third_party.mfcc(AUDIO)
    assert found.shape == (3, 49, 10, 1)
    # float32 against float64.
    np.testing.assert_allclose(found[..., 0], expected, atol=2e-3)


def test_wake_word_features_are_the_published_ones():
    audio = AUDIO.astype(np.float64)
    emphasized = audio - 31 / 32 * np.concatenate([np.zeros((3, 1)), audio[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(frames(emphasized, 1024, 512) * np.hamming(1024))) ** 2 / 1024
    expected = (10 * np.log10(mel_bands(power, 0, 8000)) + 52) / 64
    found = third_party.filter_banks(AUDIO)
    assert found.shape == (3, 30, 1, 40)
    assert 0.2 < np.median(found) < 0.8
    np.testing.assert_allclose(found[:, :, 0], np.clip(expected, 0, 1), atol=1e-4)
    assert np.all(third_party.filter_banks(np.zeros((1, 16000), np.float32)) == 0)


def test_the_loudest_second_is_cut():
    audio = np.full(50000, 0.01, np.float32)
    audio[20000:36000] = 0.5
    np.testing.assert_array_equal(third_party.loudest_second(audio), np.full(16000, np.float32(0.5)))
    short = third_party.loudest_second(np.ones(1001, np.float32))
    assert (len(short), short.sum(), short[7499], short[7500 + 999]) == (16000, 1001, 1, 1)


def test_clips_are_spread_over_the_recordings(tmp_path):
    for number in range(10):
        path = tmp_path / "wakewords" / "audio" / f"{number}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(16000, number / 100), 16000)
    clips = third_party.read_clips(tmp_path, 4)
    assert np.rint(100 * clips.mean(axis=1)).tolist() == [0, 3, 6, 9]
    assert len(third_party.read_clips(tmp_path)) == 10


def test_the_table_compares_with_the_original():
    rng = np.random.default_rng(0)
    layer = Layer("FULLY_CONNECTED", rng.integers(-127, 128, (4, 30)), np.float32([0.1]), x_shape=(1, 30))
    model = layer.file()
    inputs = rng.normal(0, 2, (200, 30)).astype(np.float32)
    text = third_party.compare(model, inputs, unknown=3, bits=(8, 2))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["original, int8", "8 bits", "2 bits, first and last layer 8", "2 bits"]
    assert rows[1][1] == f"{len(model):,}"
    # The only layer is the first one.
    assert rows[2][3:] == rows[3][3:] == ["100.0%", "100.0%", "0.0000"]
    same, change = float(rows[4][3][:-1]), float(rows[4][5])
    # Two bits: four classes with a signal ten times the noise keep most answers, not all.
    assert 60 < same < 100
    assert change > 0


def one_line(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        third_party.main(arguments)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_without_data_it_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("SUBBYTE_DATA", raising=False)
    assert re.search("no mlperf_tiny_kws/kws_ref_model.tflite.* set SUBBYTE_DATA", one_line(capsys))
    assert f"kws_ref_model.tflite in {tmp_path}" in one_line(capsys, f"--data={tmp_path}")
    for reference in third_party.REFERENCES:
        path = tmp_path / reference.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert "has no .flac recordings" in one_line(capsys, f"--data={tmp_path}")


@pytest.mark.skipif(not (DATA / third_party.REFERENCES[0].path).is_file(), reason="SUBBYTE_DATA has no MLPerf models")
def test_the_published_models_answer_as_they_should(capsys):
    third_party.main([f"--data={DATA}", "--clips=150"])
    text = capsys.readouterr().out
    for reference, section in zip(third_party.REFERENCES, text.split("## ")[1:], strict=True):
        assert section.startswith(reference.title)
        # Other words than those of the models, spoken clearly.
        unknown, sure = (float(found) for found in re.search(r"calls (.*)% unknown.*sure of (.*)%\.", section).groups())
        assert unknown > 85
        assert sure > 70
        rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in section.splitlines() if " bits" in line}
        assert rows["8 bits"][2].strip() == "100.0%"
        size, share, same, same_sure, _ = (cell.strip() for cell in rows["4 bits, first and last layer 8"])
        assert int(size.replace(",", "")) < (DATA / reference.path).stat().st_size / 2
        assert float(share[:-1]) < 50
        # 96.5 % and 99.5 % of all 2384 clips; 150 vary by a few.
        assert float(same[:-1]) > 92
        assert float(same_sure[:-1]) > 98
