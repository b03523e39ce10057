"""convert-to-tflite --format=bin: the kernels find its layers, run them, and refuse what is no such image."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from absl.testing import flagsaver
from guard import Guarded
from models import CLayer, Model, chain, random_layer

from subbyte import kernels
from subbyte.command_line import guard
from subbyte.converter import ConversionError, command
from subbyte.converter.image import image
from subbyte.kernels import native
from subbyte.schemas import ENUMS, Geometry, PackedLayer

MOST = 5


@pytest.fixture
def layers() -> list[PackedLayer]:
    """40 to 24 to 33 to 24 to 7."""
    rng = np.random.default_rng(3)
    sizes = [40, 24, 33, 24, 7]
    found = [random_layer(rng, *sizes[i : i + 2], bits) for i, bits in enumerate((3, 5, 1, 8))]
    return [replace(found[0], input_zero_point=-7, input_scale=0.1), *found[1:3], replace(found[3], output_scale=3e-8)]


def joined(layers: list[PackedLayer]) -> bytes:
    data = b""
    for layer in layers:
        data += bytes(-len(data) % 64) + layer.pack()
    return data


def find(data: bytes, most: int = MOST) -> list[tuple[int, int, int]]:
    """(offset, bytes, rows) of each layer; nothing beyond the data may be read, nor more than `most` be written."""
    library, memory = native.load(), Guarded(data)
    table, count = Guarded(bytes(ctypes.sizeof(CLayer) * most)), ctypes.c_int32(-1)
    status = library.subbyte_find_layers(memory.address, len(data), table.address, most, ctypes.addressof(count))
    if status:
        raise ValueError(library.subbyte_message(status).decode())
    entries = (CLayer * most).from_address(table.address)[: count.value]
    return [(entry.packed - memory.address, entry.bytes, entry.rows) for entry in entries]


def test_the_layers_stand_one_behind_the_other(layers: list[PackedLayer]) -> None:
    data = image(chain(layers))
    assert data == joined(layers)
    found = find(data)
    assert [data[start : start + size] for start, size, _ in found] == [layer.pack() for layer in layers]
    assert all(start % 64 == 0 and rows == 1 for start, _, rows in found)


def test_they_give_the_interpreters_numbers(layers: list[PackedLayer]) -> None:
    tflite = chain(layers)
    data, x = image(tflite), np.random.default_rng(4).integers(-128, 128, (1, 40)).astype(np.int8)
    interpreter = kernels.Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    for start, size, _ in find(data):
        x = native.fully_connected(data[start : start + size], x)
    np.testing.assert_array_equal(x, expected)


def test_what_is_no_image_is_refused(layers: list[PackedLayer]) -> None:
    data, (first, second, third, _) = joined(layers), layers
    assert len(find(data, most=4)) == 4
    with pytest.raises(ValueError, match="no more than there is room for"):
        find(data, most=3)
    for broken in (
        [first, third],  # 24 outputs, 33 inputs
        [first, replace(second, input_scale=0.25)],
        [first, replace(second, input_zero_point=3)],
        [random_layer(np.random.default_rng(5), 40, 24, activation_type=ENUMS["ActivationType"].INT16)],
        [random_layer(np.random.default_rng(5), 4, 24, op=ENUMS["Op"].CONV_2D, geometry=Geometry((2, 2)))],
    ):
        with pytest.raises(ValueError, match="each for what the one before gives"):
            find(joined(broken))


def test_every_cut_image_is_refused(layers: list[PackedLayer]) -> None:
    data = joined(layers)
    ends = {start + size for start, size, _ in find(data)}
    for size in range(len(data)):
        # Between the layers there are zeros: what ends there is whole.
        if any(end <= size <= end + -end % 64 for end in ends):
            find(data[:size])
        else:
            with pytest.raises(ValueError, match=r"too few|size"):
                find(data[:size])


def test_several_rows_are_refused(layers: list[PackedLayer]) -> None:
    with pytest.raises(ConversionError, match=r"takes 3 rows.*--format=c"):
        image(chain(layers, leading=(1, 3)))


def test_another_graph_is_refused() -> None:
    model = Model()
    layer = random_layer(np.random.default_rng(6), 8, 4)
    x = model.input_for(layer)
    y = model.layer(x, layer)
    with pytest.raises(ConversionError, match="is a ADD, and firmware has packed layers alone"):
        image(model.finish([x], [model.add(y, y, 0.5, 0)]))


def run(arguments: list[str]) -> int:
    return guard("convert-to-tflite", lambda: command._run(arguments), ConversionError)


def test_the_command_writes_it(layers: list[PackedLayer], capsys, tmp_path) -> None:
    model, output = tmp_path / "packed.tflite", tmp_path / "kws.bin"
    model.write_bytes(chain(layers))
    arguments = ["convert-to-tflite", f"--model={model}", f"--output={output}", "--format=bin"]
    with flagsaver.flagsaver():
        for flag in command.FLAGS.get_key_flags_for_module(command):
            flag.unparse()  # another test of this process may have set it
        assert run(arguments) == 0
        assert capsys.readouterr().out == f"wrote {output}\n"
        assert output.read_bytes() == joined(layers)
        for wrong, message in {
            f"--output={model}": "--format=bin writes an image, no .tflite",
            "--target=int8": "--format=bin is packed layers with int8 inputs and outputs",
        }.items():
            assert run([*arguments, wrong]) == 2
            assert message in capsys.readouterr().err
    assert model.read_bytes() == chain(layers)
