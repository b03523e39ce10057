"""The page that compares wake-word models: its figures against Keras and scikit-learn, its looks in Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import browser as chromium
import numpy as np
import pytest
from nets import Tanh, dense, keras, layers, ql
from sklearn import metrics as sklearn_metrics

from subbyte.converter import convert
from subbyte.keyword_spotting import __main__ as command
from subbyte.keyword_spotting import data, evaluate, features, metrics, report

KEYWORDS = ("alexa", "computer", "view glass")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def split() -> data.Split:
    """Sixty clips of twelve speakers; each keyword is loud in bands of its own."""
    labels = np.arange(60) % 3
    energies = RNG.exponential(1.0, (60, data.CONTEXT, features.MEL_BINS)).astype(np.float32)
    for clip, label in enumerate(labels):
        energies[clip, :, 5 * label : 5 * label + 5] *= RNG.uniform(0.5, 4.0)
    speakers = np.array([f"speaker {index // 5}" for index in range(60)])
    return data.Split(energies, labels, speakers, energies[0], energies[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, split: data.Split) -> Path:
    """A float model, one in 2 bits, packed and in stock ops, and their normalizations."""
    found = tmp_path_factory.mktemp("models")
    normalization = features.Normalization.fit(split.inputs())
    x = normalization(split.inputs())
    keras.utils.set_random_seed(0)
    floating = keras.Sequential([keras.Input((features.INPUTS,)), layers.Dense(8, activation="relu"), layers.Dense(4)])
    parts = [ql.QuantInput(4.0), dense(8, Tanh(2)), ql.ClippedReLU(4.0), dense(4, Tanh(2), normalized=False)]
    packed = keras.Sequential([keras.Input((features.INPUTS,)), *parts, ql.QuantActivation(16.0)])
    nets = {"floating": floating, "packed": packed}
    for name, net in nets.items():
        net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        net.fit(x, split.labels, epochs=4, batch_size=10, verbose=0)
        if net is packed:
            ql.set_stage(net, 2)
            (found / "packed.tflite").write_bytes(convert(net).tflite)
            (found / "stock.tflite").write_bytes(convert(net, target="int8").tflite)
        net.save(found / f"{name}.keras")
    for name in (*nets, "stock"):
        normalization.save(found / f"{name}.npz")
    return found


@pytest.fixture(scope="module")
def models(folder: Path, split: data.Split) -> list[report.Model]:
    names = ("floating.keras", "packed.tflite", "stock.tflite")
    return [report.read(folder / name, split, Path(name).stem) for name in names]


def test_models_say_what_keras_says(models: list[report.Model], folder: Path, split: data.Split) -> None:
    floating, packed, stock = models
    for model, exact in ((floating, False), (packed, True)):
        keras_file = folder / f"{model.name}.keras"
        expected = metrics.moving_average(evaluate.file_logits(keras_file, split.views()))
        np.testing.assert_allclose(model.logits, expected, rtol=0, atol=0 if exact else 1e-4)
    np.testing.assert_array_equal(packed.logits, stock.logits)


def test_figures_are_sklearns_and_differences_are_paired(models: list[report.Model], split: data.Split) -> None:
    found = report.detections(models, split)
    for model, line in zip(models, found, strict=True):
        expected = sklearn_metrics.accuracy_score(split.labels, model.logits.argmax(axis=1))
        assert line.accuracy.value == pytest.approx(expected)
        positives, negatives = metrics.trials(model.logits, split.labels)
        truth, scores = np.repeat([1, 0], [len(positives), len(negatives)]), np.concatenate([positives, negatives])
        grid = np.searchsorted(metrics.THRESHOLDS, scores, side="right")  # no threshold lies between two of its own
        alarms, hits, _ = sklearn_metrics.roc_curve(truth, grid, drop_intermediate=False)
        assert line.curve[-1].value == pytest.approx(1 - hits[alarms <= 0.2].max())
        assert line.curve[-1].low <= line.curve[-1].value <= line.curve[-1].high
    first, packed, stock = found
    assert (first.more_accuracy, first.more_misses) == (None, None)
    assert packed == stock
    assert packed.more_accuracy is not None
    assert packed.more_accuracy.value == pytest.approx(packed.accuracy.value - first.accuracy.value)
    assert packed.more_misses is not None
    for rate, difference in enumerate(packed.more_misses):
        assert difference.value == pytest.approx(packed.misses[rate].value - first.misses[rate].value)


@pytest.fixture(scope="module")
def page(folder: Path, split: data.Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes."""
    output = tmp_path_factory.mktemp("page") / "report.html"
    dataset = data.Dataset(KEYWORDS, "60 clips out of a hat", split, split, split)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.Dataset, "load", classmethod(lambda cls, *_, **__: dataset))
        files = [str(folder / name) for name in ("packed.tflite", "stock.tflite")]
        arguments = ["report", "--models", *files, f"--float={folder / 'floating.keras'}", f"--output={output}"]
        assert command.main(arguments) == 0
    return output


def cells(text: str, caption: str) -> list[list[str]]:
    """The rows of the table whose caption starts so."""
    table = next(part for part in text.split("<table>") if part.split("<span>", 1)[-1].startswith(caption))
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [[cell.strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def test_the_page_has_every_model_and_figure(
    page: Path, folder: Path, models: list[report.Model], split: data.Split
) -> None:
    text = page.read_text(encoding="utf-8")
    heading, *rows = cells(text, "Files, memory, time and accuracy")
    assert [row[0] for row in rows] == ["floating", "packed", "stock"]
    assert [row[1] for row in rows] == ["32", "2", "8"]
    assert all(cell for row in rows for cell in row)
    sizes = [len(model.tflite) for model in models]
    assert [int(row[2].replace(",", "")) for row in rows] == sizes
    assert rows[1][3] == f"{sizes[1] / sizes[0]:.1%}"
    found = report.detections(models, split)
    accuracy = heading.index("accuracy")
    assert [row[accuracy] for row in rows] == [f"{line.accuracy.value:.1%}" for line in found]
    assert rows[1][accuracy + 1] == f"{100 * (found[1].accuracy.value - found[0].accuracy.value):+.1f}"
    for name in ("packed", "stock"):
        _, *layers_of_file, rest, total = cells(text, f"{name}: bytes of each layer")
        column = [int(row[5].replace(",", "")) for row in (*layers_of_file, rest)]
        assert sum(column) == int(total[5].replace(",", "")) == (folder / f"{name}.tflite").stat().st_size
    assert text.count("<svg") == 3
    assert "60 clips out of a hat" in text


def test_a_reader_finds_no_fault(browser: chromium.Browser, page: Path) -> None:
    assert browser.faults(page) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "{}/packed.tflite", "--output={}/report.txt"], "must end in .html"),
        (["--models", "{}/packed.tflite", "--output={}/none/report.html"], "there is no folder"),
        (["--models", "{}/nobody.tflite", "--output={}/report.html"], "nobody.tflite not found"),
        (["--models", "{}/packed.tflite", "{}/packed.tflite", "--output={}/report.html"], "named twice"),
        (["--models", "{}/packed.npz", "--output={}/report.html"], "packed.npz is no .tflite: convert it"),
        (
            ["--models", "{}/packed.tflite", "--float={}/packed.keras", "--output={}/report.html"],
            "has quantized layers",
        ),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str],
    message: str,
    folder: Path,
    split: data.Split,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = data.Dataset(KEYWORDS, "", split, split, split)
    monkeypatch.setattr(data.Dataset, "load", classmethod(lambda cls, *_, **__: dataset))
    assert command.main(["report", *(argument.format(folder) for argument in arguments)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("keyword_spotting report: ")
    assert told.count("\n") == 1
    assert message in told
    assert not (folder / "report.html").exists()
