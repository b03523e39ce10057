"""The page of --report: its figures against ones worked by hand or counted in numpy, and its looks in Chromium."""

from __future__ import annotations

import html.parser
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browser as chromium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Model, chain, random_layer
from nets import Tanh, dense, keras, ql, ready, small_net

from subbyte.converter import Conversion, ConversionError
from subbyte.converter.graph import Graph
from subbyte.converter.integer_ops import LinearOp
from subbyte.converter.sizes import Footprint
from subbyte.converter.verification import verify
from subbyte.keyword_spotting import plots as plots_of_detectors
from subbyte.reports import conversion_page, figures, measuring, page, speed_rows, usage
from subbyte.reports.size_section import size_section
from subbyte.schemas import Grid

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def conversion() -> Conversion:
    return Conversion.start(small_net())


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    return {"features": RNG.normal(0, 2, (50, 10)).astype(np.float32)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that take no time and are always the same."""

    def microseconds(models, stopwatch=None):
        return {name: measuring.Timing((1e-6 * len(name),) * 3) for name in models}, {}

    monkeypatch.setattr(measuring, "microseconds", microseconds)


# Sizes


def test_bytes_by_hand(conversion: Conversion) -> None:
    """10x8 in 4 bits: 8 inputs in 4 bytes, so 2 blocks of 4 bytes a channel; 8x3 in 2 bits: 16 inputs, so one."""
    packed = Footprint.of(conversion.tflite("packed"))
    assert [layer.weights for layer in packed.layers] == [2 * 4 * 8, 4 * 3]
    assert [layer.parameters for layer in packed.layers] == [10 * 8 + 8, 8 * 3 + 3]
    # A multiplier and a bias in 16 bits, and once the float32 that the multipliers are counted from.
    assert [layer.records for layer in packed.layers] == [2 * 8 + 4, 2 * 3 + 4]
    assert [(layer.layer, layer.op, layer.bits) for layer in packed.layers] == [
        (conversion.linear_ops[0].layer, "SubbyteFullyConnected", 4),
        (conversion.linear_ops[1].layer, "SubbyteFullyConnected", 2),
    ]
    int8 = Footprint.of(conversion.tflite("int8"))
    assert [layer.weights for layer in int8.layers] == [80, 24]
    # A bias of 32 bits a channel, and a float scale for each of kernel and bias, since all channels have the same. The
    # four zero points of 64 bits are 0: the file has one, which is counted with the first layer.
    assert [layer.records for layer in int8.layers] == [4 * 8 + 2 * 4 + 8, 4 * 3 + 2 * 4]
    int4 = Footprint.of(conversion.tflite("int4"))
    assert [(layer.weights, layer.bits) for layer in int4.layers] == [(40, 4), (12, 4)]


def test_parts_add_up_to_the_file_and_shared_weights_count_once() -> None:
    layer = random_layer(RNG, 24, 20, 3, codebook=np.sort(RNG.choice(127, 8, replace=False)).astype(np.int8))
    wide = random_layer(RNG, 20, 24, 5)
    for tflite in (chain([layer, wide]), chain([layer, wide, layer])):
        found = Footprint.of(tflite)
        sizes = [part.total for part in found.layers]
        assert sizes[:2] == [len(layer.pack()), len(wide.pack())]
        assert found.weights + found.records + found.rest + found.everything_else == found.file == len(tflite)
        assert min(found.weights, found.records, found.rest, found.everything_else) > 0
    # The hand-made file has the layer's bytes twice; written by us they are there once.
    graph = Graph.read(chain([layer, wide, layer]))
    first, _, last = graph.operators
    graph.tensor(int(last.inputs[1])).buffer = graph.tensor(int(first.inputs[1])).buffer
    assert [part.total > 0 for part in Footprint.of(graph.write()).layers] == [True, True, False]
    codebook = Footprint.of(chain([layer])).layers[0]
    # 3 bits are planes of 2 and 1: 24 inputs in 2 blocks and in 1; float multipliers, and 8 bytes of codebook.
    assert codebook.weights == (2 + 1) * 4 * 20
    assert codebook.records in (20 * (4 + 2) + 8, 20 * (4 + 4) + 8)


def stock_model(draw: Callable[[st.SearchStrategy], Any]) -> bytes:
    """A stock file of fully connected layers, some with the same weights, scales for each channel or for all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width, depth = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    per_channel, is_repeated = draw(st.booleans()), draw(st.booleans())
    model = Model()
    first = x = model.tensor([1, width], scale=0.5)
    for place in range(depth):
        if not place or not is_repeated:
            weights = rng.integers(-7, 8, (width, width)).astype(np.int8)
            bias = rng.integers(-99, 100, width).astype(np.int32)
            scales = (0.01 * np.exp2(rng.integers(0, 3, width if per_channel else 1))).astype(np.float32)
        x = model.fully_connected(x, weights, bias, scales)
    return model.finish([first], [x])


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_parts_of_any_file_are_none_negative_and_add_up(data: st.DataObject) -> None:
    conversion = Conversion.start(stock_model(data.draw), prefer=None)
    result = conversion.write(data.draw(st.sampled_from(("packed", "int8", "int4"))))
    for tflite in (conversion.source.tflite, *map(conversion.tflite, ("packed", "int8", "int4"))):
        found = Footprint.of(tflite)
        parts = (found.weights, found.records, found.rest, found.everything_else)
        assert sum(parts) == found.file == len(tflite)
        assert min(parts) >= 0
        assert min(min(layer.weights, layer.records, layer.rest) for layer in found.layers) >= 0
        # What is no vector of a layer: at least the tables of the graph, a tensor's at 24 bytes.
        assert found.everything_else > 24 * len(found.layers)
    assert sum(layer.stored_bytes for layer in result.layers) < len(result.tflite)
    section = size_section(conversion, result, {name: conversion.tflite(name) for name in ("packed", "int4", "int8")})
    (table,) = [
        part for part in section.parts if isinstance(part, page.Table) and part.caption.startswith("Bytes of each")
    ]
    assert not any(cell.startswith("-") for row in (*table.rows, *table.sums) for cell in row)


# Codes


def linear_op(weights: np.ndarray, grid: Grid, real: np.ndarray | None = None) -> LinearOp:
    channels = len(weights)
    return LinearOp(
        "layer", [0], [1], weights, np.ones(channels, np.float32), np.zeros(channels, np.int64), grid, real_weights=real
    )


def test_code_usage_by_hand() -> None:
    weights = np.array([[-1, -1, -1, -1], [0, 0, 1, 1]])
    real = weights + np.array([[0.2, -0.2, 0.2, -0.2], [0.1, -0.1, 0.6, 0.0]])
    found = usage.weight_usage(linear_op(weights, Grid(2, offset=-2), real))
    assert found.values.tolist() == [-2, -1, 0, 1]
    assert found.shares.tolist() == [0, 0.5, 0.25, 0.25]
    assert (found.used, found.entropy, found.zeros) == (3, 1.5, 0.25)
    assert found.clipped == 1 / 8  # 1.6 is beyond 1.5
    assert found.sqnr_db == pytest.approx(10 * np.log10(np.sum(real**2) / np.sum((real - weights) ** 2)))
    assert found.density is not None
    heights, edges = found.density
    assert np.sum(heights * np.diff(edges)) == pytest.approx(1.0)


def test_code_usage_without_floats_and_with_a_codebook() -> None:
    sign = usage.weight_usage(linear_op(np.array([[-1, 1, 1, 1]]), Grid(1, offset=-1, step=2)))
    assert (sign.values.tolist(), sign.shares.tolist()) == ([-1, 1], [0.25, 0.75])
    assert sign.entropy == pytest.approx(0.8113, abs=1e-4)
    assert (sign.sqnr_db, sign.clipped, sign.density) == (None, None, None)
    book = usage.weight_usage(linear_op(np.array([[-90, 4, 4, 7]]), Grid(2, codebook=(-90, 4, 7, 7))))
    assert (book.values.tolist(), book.shares.tolist()) == ([-90, 4, 7], [0.25, 0.5, 0.25])


def test_activations_are_those_of_keras(conversion: Conversion, inputs: dict[str, np.ndarray]) -> None:
    model, x = small_net(), inputs["features"]
    found = usage.activations(conversion, inputs)
    outputs, hidden = x, []
    for layer in model.layers:
        outputs = np.asarray(layer(outputs))
        if isinstance(layer, ql.QuantInput | ql.ClippedReLU | ql.QuantActivation):
            hidden.append(outputs)
    assert len(found) == len(hidden) == 3
    for tensor, real in zip(found, hidden, strict=True):
        codes = np.rint(real / tensor.scale).astype(int) + tensor.zero_point
        np.testing.assert_array_equal(tensor.counts, [(codes == code).sum() for code in tensor.codes])
        assert tensor.used == (codes.min(), codes.max())
    first = found[0]
    assert (first.real(-128), first.real(127), first.bits) == (-4.0, 3.96875, 8)
    assert first.shares[-1] == np.mean(x >= 3.953125)  # what rounds to the last code, and what is beyond
    assert first.shares[-1] > 0
    assert found[1].shares[0] == np.mean(hidden[1] == 0)


def test_activations_without_inputs_have_ranges_alone(conversion: Conversion) -> None:
    found = usage.activations(conversion, None)
    assert [tensor.counts for tensor in found] == [None] * 3
    with pytest.raises(TypeError, match="give inputs"):
        found[0].used  # noqa: B018  it raises


# Memory and time


def test_the_arena_holds_what_is_alive() -> None:
    wide = random_layer(RNG, 512, 512)
    tflite = chain([wide, wide, wide])
    # Input, output, and what is between the layers, at most two of them at a time; each of 512 bytes, aligned.
    assert 3 * 512 <= measuring.arena_bytes(tflite) <= 4 * (512 + 64)
    model = Model()
    x = model.tensor([1, 512], scale=0.5)
    y = model.add(x, x, scale=1.0, zero_point=0)
    stock = model.finish([x], [model.add(y, y, scale=2.0, zero_point=0)])
    assert 2 * 512 <= measuring.arena_bytes(stock) <= 3 * (512 + 64)


def test_every_model_is_timed_or_refused() -> None:
    good = chain([random_layer(RNG, 16, 16)])
    model = Model()
    x, y = model.tensor([1, 4], scale=0.5), model.tensor([1, 4], scale=0.5)
    model.custom([x], [y], "NobodyKnows")
    timings, refused = measuring.microseconds(
        {"good": good, "bad": model.finish([x], [y])}, measuring.Stopwatch(rounds=3, seconds=1e-4)
    )
    assert list(timings) == ["good"]
    assert 0 < timings["good"].minimum <= timings["good"].median < 1e-2
    assert "NobodyKnows" in refused["bad"]
    rows = speed_rows(timings, refused, "good")
    assert rows[0][-1] == "1.00"
    assert rows[1][0] == "bad"
    assert "NobodyKnows" in rows[1][-1]


def test_the_machine_is_named() -> None:
    assert measuring.processor_name() in measuring.machine()
    assert "ai-edge-litert" in measuring.machine()


# The page


class Tables(html.parser.HTMLParser):
    """The cells of every table, by caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._caption, self._cell = "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "caption"):
            self._cell = ""

    def handle_data(self, data) -> None:
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag) -> None:
        if tag == "caption":
            self._caption = self._cell.strip()
        elif tag in ("td", "th"):
            self._rows[-1].append(self._cell.strip())
        elif tag == "table":
            self.tables[self._caption] = self._rows
        if tag in ("td", "th", "caption"):
            self._cell = None

    def __getitem__(self, start: str) -> list[list[str]]:
        (found,) = (rows for caption, rows in self.tables.items() if caption.startswith(start))
        return found


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def made(conversion: Conversion, inputs: dict[str, np.ndarray] | None = None, **arguments) -> str:
    return conversion_page(conversion, conversion.write(), "net.keras", inputs=inputs, **arguments)


@pytest.mark.parametrize("name", ["small", "used_twice", "convolution_last"])
def test_columns_add_up_to_the_files(name: str, conversion: Conversion, quick: None) -> None:
    if name != "small":
        conversion = Conversion.start(ready(name))
    heading, *rows = Tables(made(conversion))["Bytes of each layer"]
    files = {target: len(conversion.tflite(target)) for target in ("packed", "int4", "int8")}
    files["float32"] = conversion.write().totals["float32"]
    for target, size in files.items():
        *parts, total = (number(row[heading.index(target)]) for row in rows)
        assert sum(parts) == total == size, target
    *_, last = rows
    assert number(last[2]) + number(last[3]) + number(last[4]) + number(rows[-2][5]) == files["packed"]
    assert [row[0] for row in rows[:-2]] == [op.layer for op in conversion.linear_ops]


def test_a_page_is_the_same_each_time_and_loads_nothing(
    conversion: Conversion, inputs: dict[str, np.ndarray], quick: None
) -> None:
    once = made(conversion, inputs)
    assert once == made(conversion, inputs)
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|url\((?!#)|@import', once) == []
    assert "://" not in once
    assert len(once) < 200_000


def test_a_layer_of_a_stock_file_that_stays_is_told(quick: None) -> None:
    """A mixed file: one layer is packed, the other needs its 8 bits and stays."""
    keras.utils.set_random_seed(0)
    parts = [ql.QuantInput(4.0), dense(8, Tanh(2)), ql.ClippedReLU(4.0), dense(300, Tanh(8)), ql.QuantActivation(8.0)]
    model = keras.Sequential([keras.Input((10,)), *parts])
    ql.set_stage(model, 2)
    stock = Conversion.start(model).tflite("int8")
    conversion = Conversion.start(stock, prefer=None)
    assert len(conversion.notes) == 1
    text = made(conversion)
    tables = Tables(text)
    heading, first, second, *sums = tables["Bytes of each layer"]
    assert (first[1], second[1]) == ("2", "8")
    # Its zero point of 8 bytes is counted with the first layer where that is a stock one, too.
    assert number(second[heading.index("packed")]) == number(second[heading.index("int8")]) + 8
    assert number(sums[-1][heading.index("float32")]) == conversion.write().totals["float32"]
    assert "stays a stock FULLY_CONNECTED" in text
    assert "nobody knows the weights before" in text


def test_nothing_is_left_out_in_silence(conversion: Conversion, inputs: dict[str, np.ndarray], quick: None) -> None:
    without, full = made(conversion), made(conversion, inputs, comparisons=verify(conversion, inputs))
    for text in ("give --verify=FILE.npz, or --calibration", "Not done: --verify=FILE.npz", "no float model"):
        assert text in without
    tables = Tables(full)
    activations = tables["Quantized tensors on 50 inputs"]
    assert len(activations) == 1 + 3
    assert all(cell for row in activations for cell in row)
    verification = tables["Codes of the written model that differ"]
    assert [row[-1] for row in verification[1:]] == ["ok"] * 4
    assert full.count("<svg") == 2 + 2 + 3


def test_names_are_escaped(conversion: Conversion, quick: None) -> None:
    text = conversion_page(conversion, conversion.write(), '<img src="x" onerror="alert(1)">')
    assert "<img" not in text
    plot = figures.codes_and_values("p", [0, 1], [0.5, 0.5], 'a "<b>" & c')
    assert 'aria-label="a &quot;&lt;b&gt;&quot; &amp; c"' in plot


def test_a_missing_library_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    page.require()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConversionError, match=r"jinja2 and matplotlib: pip install 'subbyte\[report\]'"):
        page.require()


def test_the_converter_imports_neither() -> None:
    code = "import sys, subbyte.reports.conversion_page; sys.exit(bool({'jinja2', 'matplotlib'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Looks


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, conversion: Conversion, inputs: dict[str, np.ndarray]) -> Path:
    """A page with everything in it."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(made(conversion, inputs, comparisons=verify(conversion, inputs)), encoding="utf-8")
    return file


def test_a_reader_finds_no_fault(browser: chromium.Browser, shown: Path) -> None:
    assert browser.faults(shown) == []


def shares(count: int, high: dict[int, float]) -> np.ndarray:
    """Of `count` codes: some few have almost everything."""
    heights = np.full(count, 1e-3)
    heights[list(high)] = list(high.values())
    return heights / heights.sum()


def test_no_text_of_a_plot_lies_over_another(browser: chromium.Browser, tmp_path: Path) -> None:
    """Whatever is high and wherever it stands; bars of nothing; models of one size; names of any length."""
    codes, long = np.arange(-128, 128), "functional_1/" * 5 + "dense"
    heights = [{0: 5, 1: 4}, {0: 5, 255: 4}, {127: 5, 128: 4}, {120: 5, 135: 4}, {60: 5, 90: 4}, {254: 5, 255: 4}]
    density = np.ones(20) / 256, np.linspace(-128, 128, 21)
    plots = [figures.codes_and_values(f"p{n}", codes, shares(256, high), "x") for n, high in enumerate(heights)]
    plots += [
        figures.codes_and_values("few", np.arange(-1, 2), np.array([0.01, 0.9, 0.09]), "x"),
        figures.codes_and_values("fine", 1e-7 * codes, shares(256, heights[3]), "x", density),
        figures.stacked_bars("s", {long: {"a": 9e6, "b": 1}, "b": {"a": 2, "b": 0}, "c": {"a": 0}}, "bytes", "x"),
        figures.grouped_bars("g", [long, "b"], {"u": [0, 1e6], "v": [3, 0], "w": [1, 1], "z": [2, 9]}, "bytes", "x"),
        plots_of_detectors.points_with_intervals(
            "i", {f"{long}{n}": (1e5 + n, 0.03, 0.01, 0.05) for n in range(8)}, "bytes", "misses", "x"
        ),
    ]
    page = tmp_path / "plots.html"
    sized = "".join(f"<div style='width: 300px'>{plot}</div>" for plot in plots)
    page.write_text(f"<!doctype html><meta name=viewport content='width=device-width'>{sized}", encoding="utf-8")
    browser.open(page, chromium.PHONE, "light")
    assert browser.run("return document.querySelectorAll('text').length") > 100
    assert browser.run(chromium.TEXTS_OF_PLOTS) == []


def test_what_is_written_in_a_plot_keeps_its_decimals() -> None:
    plot = figures.codes_and_values("p", np.arange(-128, 128), shares(256, {0: 50}), "x")
    assert ">99.5% at -128<" in plot
    assert re.search(r">0\.00[0-9]+%<", plot)


def test_wide_tables_scroll_in_their_box(browser: chromium.Browser, shown: Path) -> None:
    browser.open(shown, chromium.PHONE, "light")
    boxes = browser.run("return [...document.querySelectorAll('.scroll')].map((b) => [b.scrollWidth, b.clientWidth])")
    assert any(inside > box for inside, box in boxes)
    assert all(box <= chromium.PHONE for _, box in boxes)


def test_the_button_changes_the_theme(browser: chromium.Browser, shown: Path) -> None:
    browser.open(shown, chromium.DESK, "light")
    seen = []
    for _ in range(3):
        seen.append((browser.run(chromium._BACKGROUND), browser.run("return theme.getAttribute('aria-label')")))
        browser.run("document.getElementById('theme').click()")
    assert seen[0] == seen[2] == ("rgb(255, 255, 255)", "Dark colours")
    assert seen[1] == ("rgb(20, 23, 26)", "Light colours")


def test_the_structure_is_told_to_screen_readers(browser: chromium.Browser, shown: Path) -> None:
    browser.open(shown, chromium.DESK, "light")
    bare = "return [...document.querySelectorAll('table')].filter((t) => !t.caption || !t.tHead || t.querySelector("
    assert browser.run(bare + "'th:not([scope])')).length") == 0
    told = browser.run("return [document.documentElement.lang, document.title, document.querySelectorAll('h1').length]")
    assert told == ["en", "net.keras \u2013 subbyte report", 1]


def test_faults_are_found(browser: chromium.Browser, tmp_path: Path) -> None:
    """The oracle itself: a page with one fault of each kind."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><title>bad</title><meta name=viewport content='width=device-width'>"
        "<body style='background: white'><p style='color: #999'>pale</p><div style='width: 2000px'>wide</div>"
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('oh'); nothing()</script>"
        "<svg width=10 height=10></svg><a href='#nowhere'>a</a><i id=a></i><i id=a></i>"
        "<svg aria-label=x width=200 height=200><path d='M0 0H9'/><text y=20 font-size=3>tiny</text>"
        "<text y=60>under</text><text y=62 x=9>over</text><text y=90 x=190>outside</text></svg>",
        encoding="utf-8",
    )
    found = "\n".join(browser.faults(bad))
    for fault in (
        "console: ",
        "nothing is not defined",
        "loads http://127.0.0.1:9/x.png",
        "the page is 2",
        "contrast 2.8 of 'pale'",
        "plot '' is 10 by 10 pixels with 0 paths",
        "a plot has no label",
        "'tiny' is",
        "'under' lies over 'over'",
        "'outside' leaves its plot",
        "id a twice",
        "nothing has the id nowhere",
        "390: light and dark have one background",
    ):
        assert fault in found, fault
