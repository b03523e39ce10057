"""convert-to-tflite --format=c: what it writes compiles, holds the bytes of the layers, and is refused in one line."""

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest
from absl.testing import flagsaver
from compilers import INCLUDE, STRICT, compile_c
from models import CLayer, Model, chain, random_layer, schema

from subbyte.command_line import guard
from subbyte.converter import ConversionError, command
from subbyte.converter.c_source import c_source
from subbyte.schemas import ActivationType


@pytest.fixture
def layers():
    """40 to 24 to 24 to 24 to 7, the second one twice; scales that have no short decimal form."""
    rng = np.random.default_rng(3)
    first = random_layer(rng, 40, 24, 3, input_scale=float(np.float32(0.1)), input_zero_point=-7)
    middle = random_layer(rng, 24, 24, 5)
    last = random_layer(rng, 24, 7, 8, output_scale=float(np.float32(1e-7 / 3)), output_zero_point=11)
    return [first, middle, middle, last]


def compiled(source: str, header: str, folder: Path) -> ctypes.CDLL:
    (folder / "kws-2.c").write_text(source)
    (folder / "kws-2.h").write_text(header)
    compile_c([*STRICT, "-shared", "-fPIC", "-I", INCLUDE, folder / "kws-2.c", "-o", folder / "kws.so"])
    return ctypes.CDLL(str(folder / "kws.so"))


def constants(header: str) -> dict[str, float]:
    pairs = re.findall(r"KWS_2_(\w+)(?: = | )([-+.\de]+)f?(?:,|$)", header, re.MULTILINE)
    return {name: float(value) for name, value in pairs}


@pytest.mark.parametrize("rows", [1, 3])
def test_the_table_holds_the_layers(layers, rows, tmp_path):
    c = c_source(chain(layers, leading=(1, rows)), "kws-2")
    table = (CLayer * 4).in_dll(compiled(c.source, c.header, tmp_path), "kws_2_layers")
    for entry, layer in zip(table, layers, strict=True):
        assert ctypes.string_at(entry.packed, entry.bytes) == layer.pack()
        assert entry.rows == rows
        assert entry.packed % 64 == 0
    assert table[1].packed == table[2].packed  # there once
    assert constants(c.header) == {
        "LAYERS": 4,
        "INPUTS": rows * 40,
        "OUTPUTS": rows * 7,
        "BUFFER_BYTES": rows * 24,
        "INPUT_ZERO_POINT": -7,
        "OUTPUT_ZERO_POINT": 11,
        "INPUT_SCALE": pytest.approx(0.1, rel=1e-7),
        "OUTPUT_SCALE": pytest.approx(1e-7 / 3, rel=1e-7),
    }


def test_the_header_is_for_cpp_too(layers, tmp_path):
    (tmp_path / "kws-2.h").write_text(c_source(chain(layers), "kws-2").header)
    (tmp_path / "use.cc").write_text('#include "kws-2.h"\nint main() { return kws_2_layers[KWS_2_LAYERS - 1].rows; }\n')
    compile_c(["-std=c++17", "-Wall", "-Werror", "-I", INCLUDE, "-c", tmp_path / "use.cc", "-o", tmp_path / "use.o"])


def bounded(layers, float_io: bool = False, reshaped: bool = False) -> bytes:
    """The layers with QUANTIZE and DEQUANTIZE around them, or with a reshape before the last one."""
    model = Model()
    x = first = model.input_for(layers[0])
    builtin, options = schema.BuiltinOperator, schema.BuiltinOptions
    if float_io:
        first = model.tensor([1, 40], "float32")
        model.op(builtin.QUANTIZE, [first], [x], schema.QuantizeOptionsT(), options.QuantizeOptions)
    for layer in layers:
        if reshaped and layer is layers[-1]:
            flat = model.tensor([1, 24], scale=layer.input_scale, zero_point=layer.input_zero_point)
            model.op(builtin.RESHAPE, [x], [flat], schema.ReshapeOptionsT(newShape=[1, 24]), options.ReshapeOptions)
            x = flat
        x = model.layer(x, layer)
    if float_io:
        real = model.tensor([1, 7], "float32")
        model.op(builtin.DEQUANTIZE, [x], [real], schema.DequantizeOptionsT(), options.DequantizeOptions)
        x = real
    return model.finish([first], [x])


@pytest.mark.parametrize("around", ["float_io", "reshaped"])
def test_what_computes_nothing_is_left_out(layers, around):
    def without_names(c):
        return re.sub("// .*", "", c.source), c.header

    c = c_source(bounded(layers, **{around: True}))
    assert without_names(c) == without_names(c_source(chain(layers)))


def two_inputs(layers) -> bytes:
    model = Model()
    x, unused = model.input_for(layers[0]), model.input_for(layers[0])
    return model.finish([x, unused], [model.layer(x, layers[0])])


def an_add(layers) -> bytes:
    model = Model()
    x = model.input_for(layers[0])
    y = model.layer(x, layers[0])
    return model.finish([x], [model.add(y, y, 0.5, 0)])


def out_of_order(layers) -> bytes:
    model = Model()
    x = model.input_for(layers[0])
    y = model.layer(model.layer(x, layers[0]), layers[1])
    model.operators.reverse()
    return model.finish([x], [y])


def no_layer(layers) -> bytes:
    model = Model()
    x = model.input_for(layers[0])
    return model.finish([x], [x])


def damaged(layers) -> bytes:
    model = Model()
    x = model.input_for(layers[0])
    return model.finish([x], [model.layer(x, layers[0], packed=layers[0].pack()[:-4], name="short")])


def other_scale(layers) -> bytes:
    model = Model()
    x = model.tensor([1, 40], scale=0.25)
    return model.finish([x], [model.layer(x, layers[0])])


def float_input(layers) -> bytes:
    model = Model()
    x = model.tensor([1, 40], "float32", name="features")
    return model.finish([x], [model.layer(x, layers[0])])


def sixteen_bits(layers) -> bytes:
    layer = random_layer(np.random.default_rng(3), 40, 24, activation_type=ActivationType.INT16)
    model = Model()
    x = model.input_for(layer)
    return model.finish([x], [model.layer(x, layer, name="wide")])


REFUSED = {
    two_inputs: "one input, and this one has 2",
    an_add: "is a ADD, and firmware has packed layers alone",
    out_of_order: "does not follow the layer before it",
    no_layer: "not a chain of packed layers",
    damaged: "short is damaged",
    other_scale: "packed for another input or output",
    sixteen_bits: "wide has 16-bit activations, and a model for firmware has 8-bit ones",
    float_input: "input features is not int8.*a quantizer",
}


@pytest.mark.parametrize("build", REFUSED, ids=lambda build: build.__name__)
def test_what_c_cannot_hold_is_refused(build, layers):
    with pytest.raises(ConversionError, match=REFUSED[build]) as raised:
        c_source(build(layers))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "1st", "subbyte", "...", "ü"])
def test_a_name_that_c_has_not_is_refused(name, layers):
    with pytest.raises(ConversionError, match="another name"):
        c_source(chain(layers), name)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    """The command's exit status, standard output and standard error."""
    with flagsaver.flagsaver():
        for flag in command.FLAGS.get_key_flags_for_module(command):
            flag.unparse()  # another test of this process may have set it
        try:
            arguments = ("convert-to-tflite", "--format=c", *arguments)
            status = guard("convert-to-tflite", lambda: command._run([*map(str, arguments)]), ConversionError)
        except SystemExit as stopped:
            status = stopped.code
    return status, *capsys.readouterr()


def test_the_command_writes_a_packed_file_as_c(layers, capsys, tmp_path):
    model, output = tmp_path / "packed.tflite", tmp_path / "kws-2.c"
    model.write_bytes(chain(layers))
    status, out, err = run(capsys, f"--model={model}", f"--output={output}")
    assert (status, out, err) == (0, f"wrote {output} and {tmp_path / 'kws-2.h'}\n", "")
    c = c_source(chain(layers), "kws-2")
    assert (output.read_text(), output.with_suffix(".h").read_text()) == (c.source, c.header)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--io=float32"], "leave out --target and --io"),
        (["--target=int8"], "leave out --target and --io"),
        (["--json"], "packed already"),
        (["--verify=x.npz"], "packed already"),
        (["--output=kws.tflite"], "a .c file and a .h file"),
        (["--output=folder/kws.c"], "folder/kws.h: it is a folder"),
        (["--output=2.c"], "another name"),
        (["--model=missing.tflite"], "cannot read missing.tflite"),
        (["--model=add.tflite"], "is a ADD"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(arguments, message, layers, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("packed.tflite").write_bytes(chain(layers))
    Path("add.tflite").write_bytes(an_add(layers))
    Path("folder/kws.h").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    status, out, err = run(capsys, "--model=packed.tflite", "--output=kws.c", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before
