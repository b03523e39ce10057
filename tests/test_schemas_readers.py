"""The readers in Python and in C accept the same packed layers, whatever a field of the header holds."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from models import INT16, random_layer, with_records

from subbyte.kernels import native
from subbyte.schemas import ENUMS, HEADER, Geometry, PackedLayer, Padding

Op = ENUMS["Op"]
CONVOLUTION = {"op": Op.CONV_2D, "geometry": Geometry((2, 3), (2, 1), (1, 2), Padding.SAME, groups=2)}
DEPTHWISE = {"op": Op.DEPTHWISE_CONV_2D, "geometry": Geometry((3, 1), groups=4)}


def _packed() -> dict[str, bytes]:
    """Layers that have between them every op, decoding, and type of activations, multipliers and biases."""
    rng = np.random.default_rng(7)
    table = rng.integers(-128, 128, 8).astype(np.int8)
    wide = rng.integers(-(2**23), 2**23, 20).astype(np.int32)
    layers = {
        "dense": random_layer(rng, 40, 20, 3),
        "dense, 8 bits, biases of 32": random_layer(rng, 40, 20, 8, bias=wide),
        "dense, 16-bit activations": random_layer(rng, 40, 20, 5, activation_type=INT16, clamp=(-30000, 32767)),
        "convolution by a codebook": random_layer(rng, 12, 8, 3, codebook=table, **CONVOLUTION),
        "convolution, multipliers in the biases": with_records(
            random_layer(rng, 12, 8, 3, **CONVOLUTION), "IN_BIAS", rng
        ),
        "depthwise, short multipliers": with_records(random_layer(rng, 3, 8, 1, -1, 2, **DEPTHWISE), "UFLOAT16", rng),
    }
    return {name: layer.pack() for name, layer in layers.items()}


PACKED = _packed()
#: (name, offset in bytes, type) of every number in the header; an array's numbers stand for themselves.
FIELDS = [
    (name if kind.shape == () else f"{name}[{index}]", offset + index * kind.base.itemsize, kind.base)
    for name, (kind, offset) in ((name, HEADER.fields[name][:2]) for name in HEADER.names)
    for index in range(kind.shape[0] if kind.shape else 1)
]


def accepts(reader, data: bytes) -> bool:
    try:
        reader(data)
    except ValueError:
        return False
    return True


def disagreements(packed: bytes, offset: int, values: np.ndarray) -> list:
    """The values that only one of the readers accepts at `offset`, with its name."""
    found = []
    for value in values:
        changed = packed[:offset] + value.tobytes() + packed[offset + value.itemsize :]
        in_python, in_c = accepts(PackedLayer.unpack, changed), accepts(native.check, changed)
        if in_python != in_c:
            found.append((value.item(), "Python" if in_python else "C"))
    return found


def telling(kind: np.dtype) -> np.ndarray:
    """All values of a byte; of wider numbers those near 0, near powers of two and near the ends."""
    if kind.itemsize == 1:
        return np.arange(256, dtype=np.uint8)
    if kind.kind == "f":
        special = [0, -0.0, 1, -1, 1e-45, -1e-45, 1e-38, 3.4e38, np.inf, -np.inf, np.nan, -np.nan]
        return np.array(special, kind)
    powers = 2 ** np.arange(8 * kind.itemsize)[:, None] + np.arange(-1, 2)
    numbers = np.concatenate([np.arange(-9, 70), powers.ravel(), -powers.ravel()])
    return np.unique(numbers.astype(np.int64)).astype(kind)


@pytest.mark.parametrize("layer", PACKED)
@pytest.mark.parametrize(("name", "offset", "kind"), FIELDS, ids=[name for name, *_ in FIELDS])
def test_the_readers_agree_on_a_field(layer, name, offset, kind):
    assert disagreements(PACKED[layer], offset, telling(kind)) == []


WIDE_FIELDS = [(offset, kind) for _, offset, kind in FIELDS if kind.itemsize > 1]


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(list(PACKED)), st.sampled_from(WIDE_FIELDS), st.integers(0, 2**32 - 1))
@example("dense", WIDE_FIELDS[0], 0)
def test_the_readers_agree_on_any_number(layer, field, bits):
    offset, kind = field
    assert disagreements(PACKED[layer], offset, np.array([bits], "<u4").view(kind)[:1]) == []


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(list(PACKED)), st.data())
def test_the_readers_agree_on_any_damage(layer, data):
    packed = bytearray(PACKED[layer])
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    assert accepts(PackedLayer.unpack, bytes(packed)) == accepts(native.check, bytes(packed))


@pytest.mark.parametrize("layer", PACKED)
def test_every_length_but_the_right_one_is_refused(layer):
    packed = PACKED[layer]
    for size in range(len(packed)):
        for data in (packed[:size], packed[:8] + np.uint32(size).tobytes() + packed[12:size] if size >= 12 else b""):
            assert not accepts(PackedLayer.unpack, data)
            assert not accepts(native.check, data)


#: What version 1 knows of each field whose other values a reader has to refuse.
KNOWN = {
    "version": {1},
    "header_bytes": {HEADER.itemsize},
    "requantization": {1},
    "bias_type": {1, 2},
    "accumulator_bits": {32},
    "scale_block": {0},
    "reserved": {0},
    "layout": {1},
    "decode": {1, 2},
    "activation_type": {1},
    "multiplier_type": {1, 2, 3},
    "padding": {0},
}


@pytest.mark.parametrize(("name", "known"), KNOWN.items())
def test_what_version_1_does_not_know_is_refused(name, known):
    kind, offset = HEADER.fields[name][:2]
    for value in telling(kind):
        changed = PACKED["dense"]
        changed = changed[:offset] + value.tobytes() + changed[offset + value.itemsize :]
        if value.item() not in known:
            with pytest.raises(ValueError, match="packed layer"):
                PackedLayer.unpack(changed)
