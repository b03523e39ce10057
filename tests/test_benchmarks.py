"""The benchmarks measure what they say: files, clocks, memory and tables. No figure is held to a bound of speed."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks import convolutions, networks, peers
from benchmarks import kernels as tool
from benchmarks.conv_networks import ConvNetwork, Draft, conv_models, float_tflite, run_stock
from benchmarks.fresh import heap_bytes, load_fresh
from benchmarks.machine import Probe, aligned_words
from benchmarks.networks import (
    ACTIVATION_SCALE,
    PACKED_FORMATS,
    Model,
    Network,
    PackedFormat,
    packed_model,
    random_input,
    random_layers,
)
from benchmarks.peers import STOCK_FORMATS, STOCK_NAMES, kernel_types, stock_models
from benchmarks.tables import figure, markdown_table, write_section
from subbyte.converter.flatbuffer import TensorType
from subbyte.converter.graph import Graph
from subbyte.converter.timing import Name
from subbyte.reports.measuring import Stopwatch, Timing, placed_bytes
from subbyte.schemas import Op, PackedLayer

LAYER_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
SMALL = Network((32, 24, 8))


def every_op(draft: Draft) -> int:
    x = draft.convolution(draft.input(9, 8, 3), 20, (3, 5), stride=(2, 1))
    x = draft.add(draft.convolution(x, 20, relu=False), draft.depthwise(x, (1, 3)))
    return draft.dense(draft.average(x), 7)


SMALL_CONVOLUTIONS = ConvNetwork("every op", every_op)


class FakeStopwatch(Stopwatch):
    """Knows what everything takes, such as packed 4 a microsecond and int4 three; the rest six; and a spread."""

    def time_in_turn(self, calls: Mapping[Name, Callable[[], object]]) -> dict[Name, Timing]:
        microseconds = {"packed 4": 1.0, "int4": 3.0, "float32": 8.0, "packed 4, int16": 2.0, "int8, int16": 4.0}
        medians = {name: 1e-6 * microseconds.get(str(name), 6.0) for name in calls}
        return {name: Timing((0.5 * median, median, 2 * median)) for name, median in medians.items()}


@pytest.fixture
def plan(tmp_path: Path) -> tool.Plan:
    return tool.Plan(networks=(SMALL,), stopwatch=FakeStopwatch(), loads=1, threads=2, folder=tmp_path)


def cells(table: str) -> dict[str, list[str]]:
    """The rows of a Markdown table, by their first cell."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1
    return {line[0]: line[1:] for line in lines}


def packed_layers(model: Model) -> list[PackedLayer]:
    """The packed layers in a model's file."""
    graph = Graph.read(model.path.read_bytes())
    packed = [graph.constant(int(op.inputs[1])) for op in graph.operators if graph.kind(op).startswith("Subbyte")]
    return [PackedLayer.unpack(data) for data in packed if data is not None]


def test_calls_are_timed_in_turn() -> None:
    now, log = 0.0, ""

    def call(name: str, seconds: float) -> None:
        nonlocal now, log
        now, log = now + seconds, log + name

    stopwatch = Stopwatch(rounds=3, seconds=8.0, clock=lambda: now)
    timings = stopwatch.time_in_turn({"slow": lambda: call("s", 2.0), "quick": lambda: call("q", 1.0)})
    assert timings == {"slow": Timing((2.0,) * 3), "quick": Timing((1.0,) * 3)}
    # Doubled until it takes 4 s, half of what is asked for; then an eighth and one more to warm up, and 8 s.
    assert log == "s" + "ss" + "q" + "qq" + "qqqq" + 3 * ("s" + "ssss" + "qq" + "qqqqqqqq")


def test_a_timing_is_summed_up() -> None:
    timing = Timing((5.0, 1.0, 2.0, 9.0, 3.0, 4.0, 6.0, 7.0, 8.0, 100.0))
    assert (timing.median, timing.minimum, timing.ninth_decile) == (5.5, 1.0, 9.0)


def test_networks_are_named_by_their_widths() -> None:
    assert [network.name for network in (Network((256,) * 5), SMALL, Network((256, 256)))] == [
        "256x5",
        "32-24-8",
        "256-256",
    ]
    assert SMALL.weights == 32 * 24 + 24 * 8


FORMATS = (*PACKED_FORMATS, PackedFormat(5, int16=True))


@pytest.mark.parametrize("packed_format", FORMATS, ids=lambda packed_format: packed_format.name)
def test_packed_models_use_their_range_and_are_checked(packed_format: PackedFormat, tmp_path: Path) -> None:
    model = packed_model(SMALL, packed_format, tmp_path)
    assert [layer.grid.bits for layer in packed_layers(model)] == [packed_format.bits] * 2
    interpreter = model.interpreter(rows=50)
    codes = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    unit = 256 if packed_format.int16 else 1
    inside = codes[(codes > (0 if packed_format.int16 else -128)) & (codes < 127 * unit)]
    assert inside.size > codes.size / 4
    assert inside.std() > 10 * unit
    wrong = [dataclasses.replace(layer, bias=layer.bias + 1000 * unit) for layer in packed_layers(model)]
    with pytest.raises(ValueError, match="other numbers than the reference"):
        dataclasses.replace(model, expected=lambda x: networks.run_reference(wrong, x)).interpreter()


def test_threads_and_instruction_sets_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBBYTE_ISA", "portable")
    made = []

    def make(model_path: str, num_threads: int) -> object:
        made.append((Path(model_path).name, num_threads, os.environ["SUBBYTE_ISA"]))
        return stock_interpreter(model_path=model_path, num_threads=num_threads)

    stock_interpreter = networks.kernels.Interpreter
    monkeypatch.setattr(networks.kernels, "Interpreter", make)
    model = packed_model(SMALL, PackedFormat(4), tmp_path)
    model.interpreter(threads=2, isa=tool.runnable_isas()[0])
    model.interpreter()
    assert made == [(model.path.name, 2, tool.runnable_isas()[0]), (model.path.name, 1, "portable")]


def test_stock_models_are_what_they_are_called(tmp_path: Path) -> None:
    models = {model.name: model for model in stock_models(SMALL, tmp_path)}
    assert tuple(models) == STOCK_NAMES
    types = {"float32": TensorType.FLOAT32, **{f.name: getattr(TensorType, f"INT{f.bits}") for f in STOCK_FORMATS}}
    for name, model in models.items():
        assert kernel_types(model.path.read_bytes()) == {types[name]}
        interpreter = model.interpreter(rows=3)
        # Of whole int8 models the ends are int8 too, as in packed ones.
        ends = np.int8 if name in ("int8", "int4") else np.float32
        assert interpreter.get_input_details()[0]["dtype"] == ends
        assert interpreter.get_output_details()[0]["dtype"] == ends


def test_the_stock_model_with_16_bit_activations(tmp_path: Path) -> None:
    (model,) = stock_models(SMALL, tmp_path, ("int8, int16",))
    graph = Graph.read(model.path.read_bytes())
    types = {graph.tensor(int(tensor)).type for op in graph.operators for tensor in (op.inputs[0], op.outputs[0])}
    assert types == {TensorType.INT16}
    assert {graph.tensor(int(op.inputs[2])).type for op in graph.operators} == {TensorType.INT64}
    assert model.interpreter(rows=3).get_input_details()[0]["dtype"] == np.int16


def test_stock_models_compute_the_network(tmp_path: Path) -> None:
    graph = Graph.read(peers.float_tflite(SMALL))
    x = y = random_input((64, SMALL.widths[0]), np.float32)
    for number, op in enumerate(graph.operators):
        kernel, bias = (graph.constant(int(tensor)) for tensor in op.inputs[1:])
        y = y @ kernel.T + bias
        y = np.maximum(y, 0) if number == 0 else y
    # Of the output's deviation, in the median, since few outputs beyond the samples that the quantizer saw saturate.
    # The largest of 8-bit values is some 4 deviations, or 127 steps; half of the errors of rounding are below a quarter
    # of a step: 0.8 %. Inputs, weights and activations are rounded likewise, and 4-bit weights 18 times as much.
    allowed = {"float32": 1e-5, "int8": 0.02, "int8, dynamic": 0.02, "int4": 0.2, "int4, dynamic": 0.2}
    for model in stock_models(SMALL, tmp_path, tuple(allowed)):
        interpreter = model.interpreter(rows=64)
        (x_details,), (y_details,) = interpreter.get_input_details(), interpreter.get_output_details()
        codes = x
        if x_details["dtype"] == np.int8:
            scale, zero_point = x_details["quantization"]
            codes = np.clip(np.rint(x / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(x_details["index"], codes)
        interpreter.invoke()
        found = interpreter.get_tensor(y_details["index"])
        if y_details["dtype"] == np.int8:
            scale, zero_point = y_details["quantization"]
            found = scale * (found.astype(np.float32) - zero_point)
        assert np.median(np.abs(found - y)) < allowed[model.name] * np.std(y), model.name


# Weights, multiplications and the last shape before the average, added up by hand from the tables of the papers; which
# have 22.6 thousand weights and 2.7 million multiplications, 66 thousand and 1.5 million (3.0 million operations), and
# 78.7 thousand and 12.5 million, biases and batch normalization with them.
@pytest.mark.parametrize(
    ("name", "weights", "multiplications", "shape"),
    [
        (
            "DS-CNN",
            10 * 4 * 64 + 4 * (3 * 3 * 64 + 64 * 64) + 64 * 12,
            125 * (10 * 4 * 64 + 4 * (3 * 3 * 64 + 64 * 64)) + 64 * 12,
            (1, 25, 5, 64),
        ),
        ("TC-ResNet8", 64_512, 1_522_560, (1, 1, 13, 48)),
        ("ResNet-8", 77_360, 12_501_632, (1, 8, 8, 64)),
    ],
)
def test_convolutional_networks_are_those_of_the_papers(
    name: str, weights: int, multiplications: int, shape: tuple[int, ...]
) -> None:
    (network,) = (network for network in convolutions.NETWORKS if network.name == name)
    graph = Graph.read(network.write(PackedFormat(8), "int8"))
    layers = [op for op in graph.operators if graph.kind(op) in LAYER_KINDS]
    sizes = [np.prod(graph.shape(int(op.inputs[1]))) for op in layers]
    positions = [np.prod(graph.shape(int(op.outputs[0]))[1:-1], dtype=int) for op in layers]
    assert sum(sizes) == weights
    assert sum(size * times for size, times in zip(sizes, positions, strict=True)) == multiplications
    (mean,) = (op for op in graph.operators if graph.kind(op) == "MEAN")
    assert graph.shape(int(mean.inputs[0])) == shape


def test_convolutional_models_are_what_they_are_called(tmp_path: Path) -> None:
    models = {model.name: model for model in conv_models(SMALL_CONVOLUTIONS, tmp_path)}
    assert list(models) == [*(packed_format.name for packed_format in PACKED_FORMATS), "float32", "int8", "int4"]
    for packed_format in PACKED_FORMATS:
        layers = packed_layers(models[packed_format.name])
        assert [Op(layer.op).name for layer in layers] == [LAYER_KINDS[kind] for kind in (0, 0, 1, 2)]
        assert {layer.grid.bits for layer in layers} == {packed_format.bits}
        assert {layer.grid.codebook is not None for layer in layers} == {packed_format.codebook}
    for name in ("float32", "int8", "int4"):
        graph = Graph.read(models[name].path.read_bytes())
        ops = [op for op in graph.operators if graph.kind(op) in LAYER_KINDS]
        assert [graph.tensor(int(op.inputs[1])).type for op in ops] == [getattr(TensorType, name.upper())] * 4
        # ReLU is a function or, in codes, a zero point.
        functions = [op.builtinOptions.fusedActivationFunction for op in ops]
        assert functions == ([1, 0, 1, 0] if name == "float32" else [0] * 4)
        parameters = [graph.quantization(int(op.outputs[0])) for op in ops]
        assert [of and of[1] for of in parameters] == ([None] * 4 if name == "float32" else [-128, 0, -128, 0])


@pytest.mark.parametrize("network", [SMALL_CONVOLUTIONS, *convolutions.NETWORKS], ids=lambda network: network.name)
def test_packed_convolutions_use_their_range_and_are_checked(network: ConvNetwork, tmp_path: Path) -> None:
    for model in conv_models(network, tmp_path, stock=()):
        interpreter = model.interpreter()
        codes = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert codes.std() > 10, model.name
        assert np.mean(np.abs(codes.astype(int)) < 127) > 0.5, model.name
    other = Model("other", model.path, packed=True, expected=lambda x: codes + np.int8(1))
    with pytest.raises(ValueError, match="other numbers than the reference"):
        other.interpreter()


@pytest.mark.parametrize("network", [SMALL_CONVOLUTIONS, *convolutions.NETWORKS], ids=lambda network: network.name)
def test_float_convolutions_are_the_quantized_ones_before_rounding(network: ConvNetwork) -> None:
    int8 = network.write(PackedFormat(8), "int8")
    shape = Graph.read(int8).shape(Graph.read(int8).inputs[0])
    x = np.random.default_rng(0).integers(-128, 128, (20, *shape)).astype(np.int8)
    codes = np.concatenate([run_stock(int8, one) for one in x])
    real = np.concatenate([run_stock(float_tflite(int8), np.float32(ACTIVATION_SCALE) * one) for one in x])
    # In the median, since some outputs saturate. A layer rounds by 0.3 codes in the mean square, the average by as much
    # where the codes left to it spread over 10: 3 %, and a little for what saturated on the way.
    assert np.median(np.abs(ACTIVATION_SCALE * codes - real)) < 0.05 * np.std(real)


def test_the_stock_interpreter_gives_convolutions_but_of_4_bits_to_xnnpack(tmp_path: Path) -> None:
    ends = 9 * 8 * 3 + 7  # bytes of input and output
    inner = 5 * 8 * 20  # of the first layer's output
    found = {model.name: arena(model) for model in conv_models(SMALL_CONVOLUTIONS, tmp_path)}
    assert found["float32"] < 4 * ends + 64
    assert found["int8"] < ends + 64
    # The layers' outputs: of the second and third op besides that of the first, until they are added.
    assert found["int4"] >= ends + 3 * inner
    assert found["packed 4"] >= ends + 3 * inner


def arena(model: Model) -> int:
    return placed_bytes(model.interpreter(), model.path.read_bytes())


def test_scratch_memory_is_part_of_the_arena(tmp_path: Path) -> None:
    network = ConvNetwork("window", lambda draft: draft.convolution(draft.input(4, 4, 1), 1, (3, 300)))
    (model,) = conv_models(network, tmp_path, (PackedFormat(4),), stock=())
    # A patch at least, besides 16 bytes of input and as many of output.
    assert arena(model) >= 32 + 900


def test_constants_are_counted(tmp_path: Path) -> None:
    (floats,) = stock_models(SMALL, tmp_path, ("float32",))
    assert floats.constant_bytes() == 4 * (SMALL.weights + 24 + 8)
    packed = packed_model(SMALL, PackedFormat(4), tmp_path)
    assert packed.constant_bytes() == sum(len(layer.pack()) for layer in random_layers(SMALL, PackedFormat(4)))


@pytest.mark.parametrize("size", [1 << 12, 1 << 26])  # glibc maps large ones by themselves
def test_the_heap_is_counted(size: int) -> None:
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    before = heap_bytes()
    address = library.malloc(size)
    grown = heap_bytes() - before
    library.free(address)
    assert size <= grown < size + (1 << 14)


def test_a_packed_model_takes_no_copy_of_its_weights(tmp_path: Path) -> None:
    tiny, network = Network((1, 1)), Network((512, 512, 512))
    (stock,), (tiny_stock,) = (stock_models(of, tmp_path, ("int8",)) for of in (network, tiny))
    packed, tiny_packed = (packed_model(of, PackedFormat(8), tmp_path) for of in (network, tiny))
    repacked, in_place = load_fresh(stock, tiny_stock), load_fresh(packed, tiny_packed)
    assert repacked.heap - repacked.tiny_heap > network.weights
    assert in_place.heap - in_place.tiny_heap - in_place.arena < network.weights / 50
    # Input, output, and what is between the layers, each of 512 bytes with some alignment.
    assert 3 * 512 <= in_place.arena <= 3 * (512 + 64)
    assert in_place.seconds == in_place.construct + in_place.allocate + in_place.first_invoke > 0


def test_the_probe_reads_every_word(tmp_path: Path) -> None:
    probe, words = Probe(tmp_path), aligned_words(1 << 12)
    words[:] = np.random.default_rng(0).integers(0, 1 << 40, words.size)
    assert probe.read_words(words, 3) == 3 * int(words.sum())
    with pytest.raises(ValueError, match="aligned"):
        probe.read_words(words[1:33], 1)
    # 4096 bytes, read 256 times over in what the stopwatch says are 6 microseconds.
    assert probe.read_bandwidth([1 << 12], FakeStopwatch()) == pytest.approx([(1 << 20) / 6e-6])


def test_the_host_tables(plan: tool.Plan) -> None:
    parts = tool.host(plan).split("\n\n")
    times, spread, weights, _, limits = (cells(part) for part in parts if part.startswith("|"))
    formats = [*(packed_format.name for packed_format in PACKED_FORMATS), *STOCK_NAMES]
    assert list(times) == ["weights", "---", *formats]
    assert times["weights"] == ["1-1", SMALL.name]
    assert times["packed 4"] == ["1.00 (3.00)"] * 2
    assert times["int4"] == ["3.00 (1.00)"] * 2
    assert times["packed 8"] == ["6.00 (0.50)"] * 2
    assert spread["packed 4"] == ["0.50 to 2.00"] * 2
    assert weights["packed 4"] == ["0.96"]  # 960 weights in 1000 ns
    assert list(limits["the same"]) == list(tool.READ_SIZES)


def test_the_table_of_16_bit_activations(plan: tool.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "PAPER", SMALL)
    (table,) = (part for part in tool.int16(plan).split("\n\n") if part.startswith("|"))
    assert cells(table)["weights"] == ["int16", "int8", "int16 of int8", "stock 16x8 of int16"]
    assert cells(table)["packed 4"] == ["2.00", "1.00", "2.00", "2.0"]
    assert cells(table)["packed 8"] == ["6.00", "6.00", "1.00", "0.7"]
    assert cells(table)["stock int8"] == ["4.00", "6.00", "0.67", "1.0"]


def test_the_other_tables_of_time(plan: tool.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "ISA_NETWORKS", (SMALL,))
    monkeypatch.setattr(tool, "ONE_LAYER", (Network((64, 64)),))
    isas = cells(tool.isas(plan).split("\n\n")[1])
    assert list(isas)[2:] == tool.runnable_isas()
    assert isas["portable"] == ["6.00"] * len(PACKED_FORMATS)
    rows = cells(tool.rows(plan).split("\n\n")[1])
    assert rows["packed 4"] == ["1.00 (3.00)"] * len(tool.ROWS)
    wide = dataclasses.replace(plan, networks=(SMALL, Network((1024, 1024))))
    (table,) = (part for part in tool.threads(wide).split("\n\n") if part.startswith("|"))
    assert cells(table)["weights"] == ["1", "2"]
    assert cells(table)["int4"] == ["3.00"] * 2


def test_the_tables_of_convolutions(plan: tool.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = convolutions.depthwise(3, 4, 5, (3, 3))
    monkeypatch.setattr(convolutions, "NETWORKS", (SMALL_CONVOLUTIONS,))
    monkeypatch.setattr(convolutions, "LAYERS", {"Some": (layer, convolutions.pointwise(4, 2))})
    packed = [packed_format.name for packed_format in PACKED_FORMATS]
    times, against_int4, sizes = (
        cells(part) for part in convolutions.conv_networks(plan).split("\n\n") if part.startswith("|")
    )
    assert list(times) == ["weights", "---", *packed, "float32", "int8", "int4"]
    assert list(against_int4) == ["weights", "---", *packed]
    assert times["weights"] == ["every op"]
    assert times["packed 4"] == ["1.00 (6.00)"]
    assert times["int4"] == ["3.00 (2.00)"]
    assert against_int4["packed 4"] == ["3.00"]
    assert sizes["packed 4"] == [f"{len(SMALL_CONVOLUTIONS.write(PackedFormat(4), 'packed')):,}"]
    (table,) = (part for part in convolutions.conv_layers(plan).split("\n\n") if part.startswith("|"))
    assert cells(table)["weights"] == ["3x3, 3x4x5", "4 to 4, 2 positions"]
    assert cells(table)["packed 8"] == ["6.00 (1.00)"] * 2


def test_the_tables_of_loading(plan: tool.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "EVEN_FORMATS", (PackedFormat(4),))
    monkeypatch.setattr(tool, "LOADED_STOCK", ("int8",))
    monkeypatch.setattr(convolutions, "NETWORKS", (SMALL_CONVOLUTIONS,))
    load = cells(tool.load(plan).split("\n\n")[1])
    assert load["int8"][-1] == "100.0 %"
    assert float(load["packed 4"][3]) > 0
    parts = tool.memory(plan).split("\n\n")
    assert int(cells(parts[-1])["int8"][1].replace(",", "")) >= 9 * 8 * 3 + 7  # the arena: input and output
    memory = cells(parts[1])
    assert memory["packed 4"][0] == f"{sum(len(layer.pack()) for layer in random_layers(SMALL, PackedFormat(4))):,}"


def test_the_page_has_a_place_for_every_section(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    shutil.copy(PAGE, page)
    before = page.read_text()
    for name in tool.SECTIONS:
        write_section(page, name, "replaced by the next")
        write_section(page, name, f"figures of {name}")
    content = page.read_text()
    assert "replaced by the next" not in content
    for name in tool.SECTIONS:
        assert f"<!-- begin {name} -->\n\nfigures of {name}\n\n<!-- end {name} -->" in content
    assert content.startswith(before.split("<!--")[0])
    with pytest.raises(ValueError, match="begin other"):
        write_section(page, "other", "")


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin host -->\nold\n<!-- end host -->\nafter\n")
    monkeypatch.setattr(tool, "SECTIONS", {"host": lambda plan: f"{len(plan.networks)} networks", "isas": tool.isas})
    monkeypatch.setattr(
        sys, "argv", ["kernels", "--quick", "--sections", "host", "--isa", "portable", "--write", str(page)]
    )
    tool.main()
    printed = capsys.readouterr().out
    assert "## host" in printed
    assert ", portable;" in printed
    assert f"{len(tool.NARROW)} networks" in printed
    assert "old" not in page.read_text()
    assert f"{len(tool.NARROW)} networks" in page.read_text()


def test_markdown() -> None:
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---:|\n| 1 | 2 |"
    with pytest.raises(ValueError, match="1 cells under 2 titles"):
        markdown_table(["a", "b"], [["1"]])
    assert [figure(value) for value in (0.0123, 0.654, 2.0512, 35.94, 1435.2)] == [
        "0.01",
        "0.65",
        "2.05",
        "35.9",
        "1,435",
    ]
