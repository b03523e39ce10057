"""subbyte_check() lets nothing through that the kernels could not compute inside the tensor."""

import subprocess

import numpy as np
import pytest
from compilers import ROOT, ZIG, native_compiler
from fuzz_kernels import compile_target, write_corpus
from guard import Guarded
from models import INT16, random_layer, with_records

from subbyte.kernels import native
from subbyte.schemas import ENUMS, HEADER, Geometry, Padding

CODEBOOK = np.arange(8, dtype=np.int8)


INT16_LIES = [
    ("activation_type", ENUMS["ActivationType"].INT8, "does not compute"),
    ("requantization", ENUMS["Requantization"].FLOAT32, "does not compute"),
    ("accumulator_bits", 32, "does not compute"),
    ("accumulator_bits", 16, "does not compute"),
    ("op", ENUMS["Op"].CONV_2D, "dense layers only"),
    ("input_zero_point", 1, "zero points"),
    ("output_zero_point", -1, "zero points"),
    ("clamp_max", -30001, "clamp"),
    ("bias_shift", 16, "bias"),
]


@pytest.mark.parametrize(("name", "value", "message"), INT16_LIES)
def test_a_lying_header_of_16_bit_activations_is_refused(name, value, message):
    packed = layer_bytes(activation_type=INT16, clamp=(-30000, 32767))
    native.check(packed)
    with pytest.raises(ValueError, match=message):
        native.check(with_field(packed, name, value))


def test_sums_that_could_leave_40_bits_are_refused():
    # 40 inputs of 16 bits, and 128 that are in the bias; weights of -4 to 3. They sum up to 0: nothing is in the bias.
    largest = (2**39 - 1 - 40 * 4 * (2**15 + 2**7)) // 2**8
    fields = {"codes": np.full((20, 40), 4), "activation_type": INT16}
    packed = layer_bytes(**fields, bias=np.array([*[2**8] * 19, largest * 2**8]))
    native.check(packed)
    last = int(np.frombuffer(packed, HEADER, 1)[0]["bias_offset"]) + 4 * 19
    native.check(packed[:last] + np.int32(-largest).tobytes() + packed[last + 4 :])
    for beyond in (largest + 1, -largest - 1, -(2**31)):
        with pytest.raises(ValueError, match="bias"):
            native.check(packed[:last] + np.int32(beyond).tobytes() + packed[last + 4 :])


@pytest.mark.parametrize(("value", "valid"), [(-1, 0), (-0.0, 0), (2**23, 0), (np.nan, 0), (8388607.5, 1), (1e-45, 1)])
def test_multipliers_of_16_bit_activations(value, valid):
    packed = layer_bytes(activation_type=INT16)
    offset = int(np.frombuffer(packed, HEADER, 1)[0]["multiplier_offset"]) + 4 * 19
    changed = packed[:offset] + np.float32(value).tobytes() + packed[offset + 4 :]
    if valid:
        native.check(changed)
    else:
        with pytest.raises(ValueError, match="multiplier"):
            native.check(changed)


def layer_bytes(**fields) -> bytes:
    return random_layer(np.random.default_rng(1), 40, 20, 3, **fields).pack()


def with_field(packed: bytes, name: str, value, index: int | None = None) -> bytes:
    changed = np.frombuffer(packed, np.uint8).copy()
    header = changed[: HEADER.itemsize].view(HEADER)
    if index is None:
        header[name] = value
    else:
        header[name][0, index] = value
    return changed.tobytes()


LIES = [
    ("magic", 0, "SUBB"),
    ("version", 2, "another version"),
    ("header_bytes", 96, "another version"),
    ("total_bytes", 4, "size"),
    ("total_bytes", 2**32 - 1, "size"),
    ("op", 0, "does not know"),
    ("op", 4, "does not know"),
    ("op", ENUMS["Op"].DEPTHWISE_CONV_2D, "do not fit"),
    ("weight_bits", 0, "weight_bits"),
    ("weight_bits", 9, "weight_bits"),
    ("weight_bits", 2, "section"),
    ("weight_bits", 7, "section"),
    ("decode", 0, "does not know"),
    ("decode", 3, "does not know"),
    ("decode", ENUMS["Decode"].CODEBOOK, "codebook"),
    ("layout", 0, "does not know"),
    ("layout", 2, "does not know"),
    ("activation_type", 3, "does not know"),
    ("activation_type", ENUMS["ActivationType"].INT16, "does not compute"),
    ("requantization", 0, "does not know"),
    ("requantization", ENUMS["Requantization"].FIXED_POINT, "does not compute"),
    ("multiplier_type", 0, "does not know"),
    ("multiplier_type", 4, "does not know"),
    ("multiplier_bits", 1, "more bits"),
    ("multiplier_shift", 1, "more bits"),
    ("bias_type", 0, "does not know"),
    ("bias_type", 3, "does not know"),
    ("bias_shift", 16, "bias"),
    ("bias_shift", 255, "bias"),
    ("accumulator_bits", 0, "does not know"),
    ("accumulator_bits", 16, "does not compute"),
    ("scale_block", 16, "does not compute"),
    ("input_features", 0, "input_features"),
    ("input_features", -1, "input_features"),
    ("input_features", 65794, "input_features"),
    ("input_features", 2**31 - 1, "input_features"),
    ("output_channels", 0, "output_channels"),
    ("output_channels", -20, "output_channels"),
    ("output_channels", 2**31 - 1, "section"),
    ("code_offset", -129, "-128 to 127"),
    ("code_offset", 121, "-128 to 127"),
    ("code_step", 0, "-128 to 127"),
    ("code_step", -1, "-128 to 127"),
    ("code_step", 20, "-128 to 127"),
    ("input_zero_point", 128, "zero points"),
    ("input_zero_point", -129, "zero points"),
    ("output_zero_point", 128, "zero points"),
    ("output_zero_point", -129, "zero points"),
    ("clamp_min", -129, "clamp"),
    ("clamp_max", 128, "clamp"),
    ("clamp_max", -129, "clamp"),
    ("input_scale", 0.0, "scales"),
    ("input_scale", -1.0, "scales"),
    ("input_scale", np.nan, "scales"),
    ("input_scale", np.inf, "scales"),
    ("output_scale", 0.0, "scales"),
    ("output_scale", np.nan, "scales"),
    ("output_scale", np.inf, "scales"),
    ("input_channels", 41, "do not fit"),
    ("groups", 2, "do not fit"),
    ("kernel_height", 2, "do not fit"),
    ("kernel_width", 0, "do not fit"),
    ("stride_height", 2, "do not fit"),
    ("stride_width", 0, "do not fit"),
    ("dilation_height", 2, "do not fit"),
    ("dilation_width", 0, "do not fit"),
    ("padding", ENUMS["Padding"].SAME, "do not fit"),
    ("padding", 2, "does not know"),
    ("reserved", 1, "does not know"),
    (("plane_offset", 0), 128, "section"),  # a plane that 3 bits do not have
    (("plane_offset", 1), 128, "section"),
    (("plane_offset", 2), 0, "section"),
    (("plane_offset", 2), 64, "section"),  # inside the header
    (("plane_offset", 2), 132, "section"),
    (("plane_offset", 3), 2**32 - 64, "section"),
    ("multiplier_offset", 0, "section"),
    ("multiplier_offset", 96, "section"),
    ("multiplier_offset", 130, "section"),
    ("multiplier_offset", 2**32 - 4, "section"),
    ("bias_offset", 0, "section"),
    ("bias_offset", 96, "section"),
    ("bias_offset", 2**32 - 4, "section"),
    ("codebook_offset", 128, "-128 to 127"),  # a codebook for a linear layer
]


@pytest.mark.parametrize(("field", "value", "message"), LIES, ids=lambda value: str(value).replace(" ", "_"))
def test_a_lying_header_is_refused(field, value, message):
    name, index = field if isinstance(field, tuple) else (field, None)
    lie = with_field(layer_bytes(), name, value, index)
    with pytest.raises(ValueError, match=message):
        native.check(lie)


CONVOLUTION_LIES = [
    ("op", ENUMS["Op"].FULLY_CONNECTED),
    ("op", ENUMS["Op"].DEPTHWISE_CONV_2D),
    ("input_channels", 0),
    ("input_channels", 3),
    ("input_channels", -4),
    ("groups", 0),
    ("groups", 3),  # output channels do not divide
    ("groups", 4),  # fewer inputs
    ("groups", -2),
    ("kernel_height", 0),
    ("kernel_height", 3),
    ("kernel_width", 0),
    ("kernel_width", 65535),
    ("stride_height", 0),
    ("stride_width", 0),
    ("dilation_height", 0),
    ("dilation_width", 0),
]


@pytest.mark.parametrize(("field", "value"), CONVOLUTION_LIES)
def test_a_lying_convolution_is_refused(field, value):
    geometry = Geometry(kernel=(2, 3), stride=(2, 1), padding=Padding.SAME, groups=2)
    layer = random_layer(np.random.default_rng(3), 12, 8, 3, op=ENUMS["Op"].CONV_2D, geometry=geometry)
    native.check(layer.pack())
    with pytest.raises(ValueError, match="do not fit"):
        native.check(with_field(layer.pack(), field, value))


@pytest.mark.parametrize(
    ("field", "value"),
    [("multiplier_bits", 16), ("multiplier_shift", 32), ("bias_type", ENUMS["BiasType"].INT32), ("multiplier_type", 1)],
)
def test_multipliers_that_the_biases_do_not_hold_are_refused(field, value):
    rng = np.random.default_rng(5)
    packed = with_records(random_layer(rng, 40, 20, 3), "IN_BIAS", rng).pack()
    native.check(packed)
    with pytest.raises(ValueError, match="more bits"):
        native.check(with_field(packed, field, value))


def test_a_base_of_the_multipliers_that_is_not_finite_is_refused():
    rng = np.random.default_rng(6)
    packed = bytearray(with_records(random_layer(rng, 40, 20, 3), "IN_BIAS", rng).pack())
    at = int(np.frombuffer(packed, HEADER, 1)[0]["multiplier_offset"])
    packed[at : at + 4] = np.float32(np.inf).tobytes()
    with pytest.raises(ValueError, match="not finite"):
        native.check(bytes(packed))


def test_the_list_of_lies_names_every_field():
    assert {field if isinstance(field, str) else field[0] for field, *_ in LIES} == set(HEADER.names)


@pytest.mark.parametrize(("offset", "valid"), [(0, False), (99, False), (102, False), (2**32 - 8, False), (104, True)])
def test_the_codebook_lies_in_the_tensor(offset, valid):
    packed = with_field(layer_bytes(codebook=CODEBOOK), "codebook_offset", offset)
    if valid:
        native.check(packed)
    else:
        with pytest.raises(ValueError, match=r"codebook|section"):
            native.check(packed)


def test_every_length_but_the_right_one_is_refused():
    packed = layer_bytes()
    for size in range(len(packed)):
        cut = packed[:size]
        with pytest.raises(ValueError, match=r"few bytes|size"):
            native.check(cut)
        if size >= HEADER.itemsize and size % 4 == 0:
            with pytest.raises(ValueError, match="section"):
                native.check(with_field(cut, "total_bytes", size))
    with pytest.raises(ValueError, match="size"):
        native.check(packed + bytes(1))


def test_the_check_reads_nothing_beyond_the_tensor():
    """On guard pages: every length, with a header that claims the whole and one that claims what is there."""
    packed, library = layer_bytes(), native.load()
    for size in range(len(packed)):
        for claim in (len(packed), size):
            memory = Guarded(with_field(packed, "total_bytes", claim)[:size])
            assert library.subbyte_check(memory.address, size) != 0


def test_a_last_block_may_be_read_as_64_bytes():
    """One channel uses 4 bytes of its last block: the packer pads, and without the padding the layer is refused."""
    packed = random_layer(np.random.default_rng(2), 8, 1, 4).pack()
    plane = int(np.frombuffer(packed, HEADER, 1)[0]["plane_offset"][1])
    assert len(packed) == plane + 64
    shorter = with_field(packed[:-4], "total_bytes", len(packed) - 4)
    with pytest.raises(ValueError, match="section"):
        native.check(shorter)


def test_sums_that_could_leave_32_bits_are_refused():
    largest = 2**31 - 1 - 40 * 4 * 128  # 40 inputs, weights of -4 to 3
    native.check(layer_bytes(bias=np.full(20, largest, np.int32)))
    native.check(layer_bytes(bias=np.full(20, -largest, np.int32)))
    packed = layer_bytes(bias=np.full(20, largest, np.int32))
    last = int(np.frombuffer(packed, HEADER, 1)[0]["bias_offset"]) + 4 * 19
    for beyond in (largest + 1, -largest - 1, -(2**31)):  # the packer refuses them too
        with pytest.raises(ValueError, match="bias"):
            native.check(packed[:last] + np.int32(beyond).tobytes() + packed[last + 4 :])


def test_multipliers_must_be_finite():
    packed = layer_bytes()
    offset = int(np.frombuffer(packed, HEADER, 1)[0]["multiplier_offset"]) + 4 * 19
    for value in (np.nan, np.inf, -np.inf):
        changed = packed[:offset] + np.float32(value).tobytes() + packed[offset + 4 :]
        with pytest.raises(ValueError, match="multiplier"):
            native.check(changed)


@pytest.mark.parametrize(
    ("sanitizers", "compiler"),
    [("address,undefined", native_compiler()), ("undefined", ZIG)],  # zig's looks at pointers, too
    ids=["native", "zig"],
)
def test_damaged_layers_are_refused_or_stay_in_bounds(tmp_path, sanitizers, compiler):
    """Layers of every kind, then damaged ones: all instruction sets give the same numbers, or the check says no."""
    corpus, rounds = write_corpus(tmp_path / "corpus"), 2000
    program = compile_target(sanitizers, [ROOT / "tests/c/fuzz_main.c"], compiler)
    whole = subprocess.run([program, "0", *corpus], capture_output=True, text=True, check=False)
    assert (whole.returncode, whole.stdout.split()) == (0, [str(len(corpus)), "0"]), whole.stderr
    done = subprocess.run([program, str(rounds), *corpus], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accepted, rejected = map(int, done.stdout.split())
    assert accepted + rejected == len(corpus) * (rounds + 1)
    assert accepted > len(corpus) * rounds / 20  # weights and biases are free to change, so the kernels do run
    assert rejected > len(corpus) * rounds / 2
