"""The packed layer in numpy: the twin of the C kernel's reader, and the only writer.

    layer = PackedLayer(codes, multiplier, bias, ...)
    PackedLayer.unpack(layer.pack()) == layer

`docs/format.md` works one example by hand; `packed_layer.fbs` defines every field.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np

from .definition import ENUMS, HEADER

Op = ENUMS["Op"]
Decode = ENUMS["Decode"]
Layout = ENUMS["Layout"]
ActivationType = ENUMS["ActivationType"]
Requantization = ENUMS["Requantization"]
MultiplierType = ENUMS["MultiplierType"]
BiasType = ENUMS["BiasType"]
Padding = ENUMS["Padding"]

MAGIC = int.from_bytes(b"SUBB", "little")
VERSION = 1
PANEL = 16  # output channels
BLOCK_BYTES = 64
PLANE_WIDTHS = (8, 4, 2, 1)


@dataclass(frozen=True)
class Geometry:
    """The window of a convolution; a fully connected layer keeps the defaults.

    A depthwise convolution has as many groups as input channels.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: int = Padding.VALID
    groups: int = 1


@dataclass(frozen=True)
class PackedLayer:
    """One layer as it is deployed.

    Attributes:
        codes: [output_channels, input_features] unsigned integers below 2^weight_bits.
        weight_bits: 1 to 8.
        multiplier: [output_channels] float32, input_scale * weight_scale / output_scale.
        bias: [output_channels] int32, in units of input_scale * weight_scale, less input_zero_point * sum(weights).
            Of 16-bit activations int64; beyond 32 bits it must be a multiple of a power of two.
        code_offset, code_step: linear decode, weight = code_offset + code_step * code.
        codebook: [2^weight_bits] int8, or None for linear decode.
        input_scale, output_scale, input_zero_point, output_zero_point: TFLite's, real = scale * (code - zero_point).
        clamp: smallest and largest output code.
        activation_type: of inputs and outputs; INT16 for fully connected layers whose zero points are 0.
    """

    codes: np.ndarray
    weight_bits: int
    multiplier: np.ndarray
    bias: np.ndarray
    input_scale: float
    output_scale: float
    input_zero_point: int = 0
    output_zero_point: int = 0
    clamp: tuple[int, int] = (-128, 127)
    code_offset: int = 0
    code_step: int = 1
    codebook: np.ndarray | None = None
    op: int = Op.FULLY_CONNECTED
    geometry: Geometry = field(default_factory=Geometry)
    activation_type: int = ActivationType.INT8

    @property
    def activation_dtype(self) -> np.dtype:
        """Of inputs and outputs."""
        return np.dtype(np.int16 if self._is_int16 else np.int8)

    @property
    def _is_int16(self) -> bool:
        return self.activation_type == ActivationType.INT16

    @property
    def _stored_bias(self) -> np.ndarray:
        """The bias in int64, and in it what the kernel's sums lack."""
        bias = self.bias.astype(np.int64)
        return bias + split_bias(self.weights) if self._is_int16 else bias

    @property
    def weights(self) -> np.ndarray:
        """[output_channels, input_features] int32, decoded."""
        if self.codebook is not None:
            return self.codebook.astype(np.int32)[self.codes]
        return self.code_offset + self.code_step * self.codes.astype(np.int32)

    @property
    def _panel_run(self) -> int:
        """Output channels that panels go through: those that read the same inputs."""
        return _panel_run(self.op, len(self.codes), self.geometry.groups)

    def pack(self) -> bytes:
        """The layer's bytes, the same for the same layer. Raises ValueError for a layer the format cannot hold."""
        self._check()
        channels, features = self.codes.shape
        records = _shortest_records(self.multiplier, self._stored_bias)
        header = np.zeros((), HEADER)
        sections = _Sections(HEADER.itemsize)
        last_block = 0
        run = self._panel_run
        for slot, plane in enumerate(pack_planes(self.codes, self.weight_bits, run)):
            if plane.size:
                offset = sections.add(plane.tobytes(), alignment=64)
                header["plane_offset"][slot] = offset
                last_block = offset + plane.size - 4 * _last_panel(run)
        header["multiplier_offset"] = sections.add(records.multipliers.tobytes(), alignment=4)
        header["bias_offset"] = sections.add(records.biases.tobytes(), alignment=4)
        if self.codebook is not None:
            header["codebook_offset"] = sections.add(self.codebook.astype(np.int8).tobytes(), alignment=4)
        body = sections.finish(at_least=last_block + BLOCK_BYTES)

        geometry = self.geometry
        values = {
            "magic": MAGIC,
            "version": VERSION,
            "header_bytes": HEADER.itemsize,
            "total_bytes": HEADER.itemsize + len(body),
            "op": self.op,
            "weight_bits": self.weight_bits,
            "decode": Decode.LINEAR if self.codebook is None else Decode.CODEBOOK,
            "layout": Layout.PANELS_OF_16_BY_4,
            "activation_type": self.activation_type,
            "requantization": Requantization.FIXED_POINT if self._is_int16 else Requantization.FLOAT32,
            **records.fields,
            "accumulator_bits": 64 if self._is_int16 else 32,
            "input_features": features,
            "output_channels": channels,
            "code_offset": self.code_offset,
            "code_step": self.code_step,
            "input_zero_point": self.input_zero_point,
            "output_zero_point": self.output_zero_point,
            "clamp_min": self.clamp[0],
            "clamp_max": self.clamp[1],
            "input_scale": self.input_scale,
            "output_scale": self.output_scale,
            "input_channels": features // (geometry.kernel[0] * geometry.kernel[1]) * geometry.groups,
            "groups": geometry.groups,
            "padding": geometry.padding,
        }
        for name in ("kernel", "stride", "dilation"):
            values[f"{name}_height"], values[f"{name}_width"] = getattr(geometry, name)
        for name, value in values.items():
            header[name] = value
        return header.tobytes() + body

    @classmethod
    def unpack(cls, data: bytes | np.ndarray) -> PackedLayer:
        """Reads what `pack` wrote. Raises ValueError, with the reason, for anything else."""
        data = bytes(data)
        header = read_header(data)
        channels, features = int(header["output_channels"]), int(header["input_features"])
        bits = int(header["weight_bits"])

        def section(name: str, dtype: str, count: int) -> np.ndarray:
            return np.frombuffer(data, dtype, count, int(header[name]))

        bias_dtype = "<i2" if header["bias_type"] == BiasType.INT16 else "<i4"
        stored = section("bias_offset", bias_dtype, channels).astype(np.int64)
        in_bias = int(header["multiplier_bits"])
        if header["multiplier_type"] == MultiplierType.UFLOAT16:
            multiplier = (section("multiplier_offset", "<u2", channels).astype(np.uint32) << 14).view(np.float32)
        elif header["multiplier_type"] == MultiplierType.IN_BIAS:
            steps = (stored & ((1 << in_bias) - 1)) << int(header["multiplier_shift"])
            multiplier = (section("multiplier_offset", "<u4", 1) + steps).astype(np.uint32).view(np.float32)
        else:
            multiplier = section("multiplier_offset", "<f4", channels)
        bias = stored >> in_bias << int(header["bias_shift"])
        planes = [
            np.frombuffer(data, np.uint8, plane_bytes(width, channels, features), int(offset)) if bits & width else None
            for width, offset in zip(PLANE_WIDTHS, header["plane_offset"], strict=True)
        ]
        codebook = section("codebook_offset", "i1", 1 << bits) if header["decode"] == Decode.CODEBOOK else None
        layer = cls(
            codes=unpack_planes(planes, channels, features, _panel_run(header["op"], channels, int(header["groups"]))),
            weight_bits=bits,
            multiplier=multiplier,
            bias=bias,
            activation_type=ActivationType(header["activation_type"]),
            codebook=codebook,
            clamp=(int(header["clamp_min"]), int(header["clamp_max"])),
            op=Op(header["op"]),
            geometry=Geometry(
                padding=Padding(header["padding"]),
                groups=int(header["groups"]),
                **{
                    name: (int(header[f"{name}_height"]), int(header[f"{name}_width"]))
                    for name in ("kernel", "stride", "dilation")
                },
            ),
            **{name: header[name].item() for name in _PLAIN_FIELDS},
        )
        plain = bias - split_bias(layer.weights) if layer._is_int16 else bias.astype(np.int32)
        return replace(layer, bias=plain)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedLayer):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def _check(self) -> None:
        if self.codes.ndim != 2 or 0 in self.codes.shape:
            raise ValueError(f"codes must be [output_channels, input_features], not {self.codes.shape}")
        if not 1 <= self.weight_bits <= 8:
            raise ValueError(f"weight_bits must be 1 to 8, not {self.weight_bits}")
        if self.codes.min() < 0 or self.codes.max() >= 1 << self.weight_bits:
            raise ValueError(f"codes run from {self.codes.min()} to {self.codes.max()}: not {self.weight_bits} bits")
        channels, features = self.codes.shape
        for name in ("multiplier", "bias"):
            if getattr(self, name).shape != (channels,):
                raise ValueError(f"{name} must have one value for each of {channels} channels")
        if not np.all(np.isfinite(self.multiplier)):
            raise ValueError("a multiplier is not finite")
        if self.codebook is not None and self.codebook.shape != (1 << self.weight_bits,):
            raise ValueError(f"a codebook of {self.weight_bits} bits has {1 << self.weight_bits} values")
        last = self.code_offset + self.code_step * ((1 << self.weight_bits) - 1)
        if self.codebook is None and not (self.code_offset >= -128 and self.code_step >= 1 and last <= 127):
            raise ValueError(f"weights from {self.code_offset} to {last} in steps of {self.code_step}: not 8 bits")
        if features > MAX_FEATURES:
            raise ValueError(f"{features} inputs a channel: the 32-bit sum is safe up to {MAX_FEATURES}")
        ends = (
            [self.code_offset, last] if self.codebook is None else [int(self.codebook.min()), int(self.codebook.max())]
        )
        self._check_bias(max(map(abs, ends)))
        self._check_geometry()
        self._check_activations()

    def _check_bias(self, largest_weight: int) -> None:
        features = self.codes.shape[1]
        largest_input, limit = (2**15 + 2**7, LARGEST_INT16_SUM) if self._is_int16 else (2**7, 2**31 - 1)
        room = limit - largest_input * features * largest_weight
        if np.abs(self._stored_bias).max() > room:
            bits = 40 if self._is_int16 else 32
            raise ValueError(f"a bias beyond {room}: with {features} inputs the sum could leave {bits} bits")

    def _check_geometry(self) -> None:
        geometry, (channels, features) = self.geometry, self.codes.shape
        if self.op == Op.FULLY_CONNECTED:
            if geometry != Geometry():
                raise ValueError(f"a fully connected layer has no window, stride or groups: {geometry}")
            return
        sizes = (*geometry.kernel, *geometry.stride, *geometry.dilation, geometry.groups)
        if min(sizes) < 1 or max(geometry.kernel) > 65535 or max(*geometry.stride, *geometry.dilation) > 255:
            raise ValueError(f"kernel must be 1 to 65535, stride and dilation 1 to 255, groups at least 1: {geometry}")
        taps = geometry.kernel[0] * geometry.kernel[1]
        if channels % geometry.groups or features % taps:
            raise ValueError(f"{channels} x {features} codes do not fit {geometry}")
        if self.op == Op.DEPTHWISE_CONV_2D and features != taps:
            raise ValueError(f"a depthwise convolution has a code for each of {taps} taps a channel, not {features}")

    def _check_activations(self) -> None:
        codes = (self.input_zero_point, self.output_zero_point, *self.clamp)
        ends = np.iinfo(self.activation_dtype)
        if min(codes) < ends.min or max(codes) > ends.max or self.clamp[0] > self.clamp[1]:
            name = self.activation_dtype.name
            raise ValueError(f"zero points and clamp must be {name} codes, the clamp in order, not {codes}")
        if self._is_int16:
            self._check_int16()
        for scale in np.array([self.input_scale, self.output_scale], np.float32):
            if not 0 < scale < np.inf:
                raise ValueError(f"input_scale and output_scale must be positive float32 numbers, not {scale}")

    def _check_int16(self) -> None:
        if self.op != Op.FULLY_CONNECTED:
            raise ValueError("16-bit activations: dense layers only")
        if self.input_zero_point or self.output_zero_point:
            raise ValueError("16-bit activations have zero points of 0")
        if np.signbit(self.multiplier).any() or self.multiplier.max() >= 2**23:
            raise ValueError("multipliers of 16-bit activations must be from 0 to below 2^23")


def split_bias(weights: np.ndarray) -> np.ndarray:
    """What the kernel's sums lack of a layer with 16-bit activations, [output_channels] int64.

    It takes x = 256 * high + low + 128 as two int8 codes: sum(w * x) = sum(w * (256 * high + low)) + 128 * sum(w).
    """
    return 128 * weights.sum(axis=1, dtype=np.int64)


# |code| <= 255, |x| <= 128: K * 255 * 128 < 2^31.
MAX_FEATURES = (2**31 - 1) // (255 * 128)

#: Its product with a float32's 24 bits fits in 63.
LARGEST_INT16_SUM = 2**39 - 1

_PLAIN_FIELDS = (
    "input_scale",
    "output_scale",
    "input_zero_point",
    "output_zero_point",
    "code_offset",
    "code_step",
)


_READ_ENUMS = {
    "op": Op,
    "decode": Decode,
    "layout": Layout,
    "activation_type": ActivationType,
    "multiplier_type": MultiplierType,
}


def read_header(data: bytes) -> np.void:
    """The header of packed bytes, checked against their length. Raises ValueError with the reason."""
    if len(data) < HEADER.itemsize:
        raise ValueError(f"{len(data)} bytes are too few for a packed layer's header")
    header = np.frombuffer(data, HEADER, 1)[0]
    if header["magic"] != MAGIC:
        raise ValueError("not a packed layer: wrong magic")
    if header["version"] != VERSION or header["header_bytes"] != HEADER.itemsize:
        raise ValueError(f"packed layer of version {header['version']}; this subbyte reads version {VERSION}")
    if header["total_bytes"] != len(data):
        raise ValueError(f"packed layer of {header['total_bytes']} bytes in {len(data)} bytes")
    for name, enum in _READ_ENUMS.items():
        if header[name] not in list(enum):
            raise ValueError(f"packed layer with unknown {name} {header[name]}")
    return header


def plane_bytes(width: int, channels: int, features: int) -> int:
    """Size of the plane of `width` bits."""
    return -(-features * width // 32) * 4 * channels


def _panel_run(op: int, channels: int, groups: int) -> int:
    return channels // groups if op == Op.CONV_2D else channels


def pack_planes(codes: np.ndarray, bits: int, run: int | None = None) -> list[np.ndarray]:
    """Codes [channels, features] as uint8 planes of 8, 4, 2 and 1 bits; empty where `bits` has no such digit.

    Panels start anew after every `run` channels; by default they go through all.
    """
    planes, shift = [], 0
    for width in PLANE_WIDTHS:
        if not bits & width:
            planes.append(np.zeros(0, np.uint8))
            continue
        planes.append(_pack_plane((codes >> shift) & ((1 << width) - 1), width, run or len(codes)))
        shift += width
    return planes


def unpack_planes(planes: list[np.ndarray | None], channels: int, features: int, run: int | None = None) -> np.ndarray:
    """The inverse of `pack_planes`: uint8 codes [channels, features]."""
    codes, shift = np.zeros((channels, features), np.uint8), 0
    for width, plane in zip(PLANE_WIDTHS, planes, strict=True):
        if plane is not None and plane.size:
            codes |= _unpack_plane(plane, width, channels, features, run or channels) << shift
            shift += width
    return codes


def _panels(channels: int, run: int) -> list[slice]:
    return [
        slice(c, min(c + PANEL, start + run))
        for start in range(0, channels, run)
        for c in range(start, start + run, PANEL)
    ]


def _pack_plane(digits: np.ndarray, width: int, run: int) -> np.ndarray:
    channels, features = digits.shape
    fields = 8 // width
    blocks = -(-features // (4 * fields))
    padded = np.zeros((channels, blocks, fields, 4), np.uint8)
    padded.reshape(channels, -1)[:, :features] = digits
    shifts = (width * np.arange(fields, dtype=np.uint8))[:, None]
    rows = np.bitwise_or.reduce(padded << shifts, axis=2)  # [channels, blocks, 4]
    return np.concatenate([rows[panel].transpose(1, 0, 2).ravel() for panel in _panels(channels, run)])


def _unpack_plane(plane: np.ndarray, width: int, channels: int, features: int, run: int) -> np.ndarray:
    fields = 8 // width
    blocks = -(-features // (4 * fields))
    rows = np.empty((channels, blocks, 4), np.uint8)
    for panel in _panels(channels, run):
        section = plane[panel.start * blocks * 4 : panel.stop * blocks * 4]
        rows[panel] = section.reshape(blocks, -1, 4).transpose(1, 0, 2)
    shifts = (width * np.arange(fields, dtype=np.uint8))[:, None]
    digits = (rows[:, :, None, :] >> shifts) & ((1 << width) - 1)  # [channels, blocks, fields, 4]
    return digits.reshape(channels, -1)[:, :features]


def _last_panel(channels: int) -> int:
    return (channels - 1) % PANEL + 1


@dataclass(frozen=True)
class _Records:
    """What each channel has besides its weights, as it is stored, and the header's fields that tell how."""

    multipliers: np.ndarray
    biases: np.ndarray
    fields: dict[str, int]


def _shortest_records(multiplier: np.ndarray, bias: np.ndarray) -> _Records:
    biases, bias_type, shift = _shortest_bias(bias)
    fields = {"bias_type": bias_type, "bias_shift": shift}
    if bias_type == BiasType.INT16:
        # Floats of one sign are in the order of their bits: what they have above the smallest is a short code.
        bits = multiplier.astype("<f4").view("<u4").astype(np.int64)
        steps = bits - bits.min()
        common = int(np.bitwise_or.reduce(steps))
        step = max((common & -common).bit_length() - 1, 0)
        width = int(steps.max() >> step).bit_length()
        limit = 2 ** (15 - width) if width <= 15 else 0
        if biases.min() >= -limit and biases.max() < limit:
            words = (biases.astype(np.int64) << width) + (steps >> step)
            fields |= {"multiplier_type": MultiplierType.IN_BIAS, "multiplier_bits": width, "multiplier_shift": step}
            return _Records(bits.min(keepdims=True).astype("<u4"), words.astype("<i2"), fields)
    multipliers, fields["multiplier_type"] = _shortest_multiplier(multiplier)
    return _Records(multipliers, biases, fields)


def _shortest_multiplier(multiplier: np.ndarray) -> tuple[np.ndarray, int]:
    bits = multiplier.astype("<f4").view("<u4")
    if np.all(bits & 0xC0003FFF == 0):
        return (bits >> 14).astype("<u2"), MultiplierType.UFLOAT16
    return multiplier.astype("<f4"), MultiplierType.FLOAT32


def _shortest_bias(bias: np.ndarray) -> tuple[np.ndarray, int, int]:
    """int64 in 16 bits and a common shift where that loses nothing, else in 32, shifted where they need it."""
    common = int(np.bitwise_or.reduce(bias))
    shift = min((common & -common).bit_length() - 1, 15) if common else 0
    short = bias >> shift
    if short.min() >= -(2**15) and short.max() < 2**15:
        return short.astype("<i2"), BiasType.INT16, shift
    if bias.min() >= -(2**31) and bias.max() < 2**31:
        return bias.astype("<i4"), BiasType.INT32, 0
    if short.min() >= -(2**31) and short.max() < 2**31:
        return short.astype("<i4"), BiasType.INT32, shift
    raise ValueError("biases beyond 32 bits must be multiples of a power of two, at most 2^15, that leaves 32 bits")


class _Sections:
    """Sections laid one after the other behind a header of `start` bytes."""

    def __init__(self, start: int) -> None:
        self._start, self._data = start, bytearray()

    def add(self, section: bytes, alignment: int) -> int:
        self._data += bytes(-(self._start + len(self._data)) % alignment)
        offset = self._start + len(self._data)
        self._data += section
        return offset

    def finish(self, at_least: int) -> bytes:
        self._data += bytes(max(0, at_least - self._start - len(self._data)))
        self._data += bytes(-(self._start + len(self._data)) % 4)
        return bytes(self._data)
