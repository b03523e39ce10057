"""The packed layer in numpy: the twin of the C kernel's reader, and the only writer.

    layer = PackedLayer(codes, grid, multiplier, bias, ...)
    PackedLayer.unpack(layer.pack()) == layer

`docs/format.md` works one example by hand; `packed_layer.fbs` defines every field.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np

from . import records
from .definition import ENUMS, HEADER
from .grid import Grid
from .header import ARITHMETIC, MAGIC, MAX_FEATURES, VERSION, ActivationType, Decode, Padding, read_header
from .ops import Op
from .planes import BLOCK_BYTES, PLANE_WIDTHS, last_panel, pack_planes, panel_run, plane_bytes, unpack_planes
from .records import Records

Layout = ENUMS["Layout"]

#: Its product with a float32's 24 bits fits in 63.
LARGEST_INT16_SUM = 2**39 - 1


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

    @property
    def fields(self) -> dict[str, int]:
        """Its fields of the header."""
        sizes = {"kernel": self.kernel, "stride": self.stride, "dilation": self.dilation}
        window = {
            f"{name}_{side}": size
            for name, pair in sizes.items()
            for side, size in zip(("height", "width"), pair, strict=True)
        }
        return {**window, "padding": self.padding, "groups": self.groups}

    @classmethod
    def read(cls, header: np.void) -> Geometry:
        """The inverse of `fields`."""
        sizes = {
            name: (int(header[f"{name}_height"]), int(header[f"{name}_width"]))
            for name in ("kernel", "stride", "dilation")
        }
        return cls(padding=Padding(header["padding"]), groups=int(header["groups"]), **sizes)


@dataclass(frozen=True)
class PackedLayer:
    """One layer as it is deployed.

    Attributes:
        codes: [output_channels, input_features] unsigned integers below 2^bits of the grid.
        grid: which weight a code stands for.
        multiplier: [output_channels] float32, input_scale * weight_scale / output_scale.
        bias: [output_channels] int32, in units of input_scale * weight_scale, less input_zero_point * sum(weights).
            Of 16-bit activations int64; beyond 32 bits it must be a multiple of a power of two.
        input_scale, output_scale, input_zero_point, output_zero_point: TFLite's, real = scale * (code - zero_point).
        clamp: smallest and largest output code.
        activation_type: of inputs and outputs; INT16 for fully connected layers whose zero points are 0.
    """

    codes: np.ndarray
    grid: Grid
    multiplier: np.ndarray
    bias: np.ndarray
    input_scale: float
    output_scale: float
    input_zero_point: int = 0
    output_zero_point: int = 0
    clamp: tuple[int, int] = (-128, 127)
    op: int = Op.FULLY_CONNECTED
    geometry: Geometry = field(default_factory=Geometry)
    activation_type: int = ActivationType.INT8

    @property
    def activation_dtype(self) -> np.dtype:
        """The type of inputs and outputs."""
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
        return self.grid.decode(self.codes)

    def pack(self) -> bytes:
        """The layer's bytes, the same for the same layer. Raises ValueError for a layer the format cannot hold."""
        self._check()
        header = np.zeros((), HEADER)
        sections = _Sections(HEADER.itemsize)
        last_block = 0
        run = panel_run(self.op, len(self.codes), self.geometry.groups)
        for slot, plane in enumerate(pack_planes(self.codes, self.grid.bits, run)):
            if plane.size:
                offset = sections.add(plane.tobytes(), alignment=64)
                header["plane_offset"][slot] = offset
                last_block = offset + plane.size - 4 * last_panel(run)
        stored = Records.shortest(self.multiplier, self._stored_bias)
        header["multiplier_offset"] = sections.add(stored.multipliers.tobytes(), alignment=4)
        header["bias_offset"] = sections.add(stored.biases.tobytes(), alignment=4)
        if self.grid.codebook is not None:
            header["codebook_offset"] = sections.add(self.grid.weights.astype(np.int8).tobytes(), alignment=4)
        body = sections.finish(at_least=last_block + BLOCK_BYTES)
        for name, value in {**self._fields(HEADER.itemsize + len(body)), **stored.fields}.items():
            header[name] = value
        return header.tobytes() + body

    def _fields(self, total_bytes: int) -> dict[str, float]:
        """The fields of the header, but for those of sections and records."""
        (channels, features), geometry = self.codes.shape, self.geometry
        return {
            "magic": MAGIC,
            "version": VERSION,
            "header_bytes": HEADER.itemsize,
            "total_bytes": total_bytes,
            "op": self.op,
            "weight_bits": self.grid.bits,
            "decode": Decode.LINEAR if self.grid.codebook is None else Decode.CODEBOOK,
            "layout": Layout.PANELS_OF_16_BY_4,
            "activation_type": self.activation_type,
            **ARITHMETIC[self.activation_type],
            "input_features": features,
            "output_channels": channels,
            "code_offset": self.grid.offset,
            "code_step": self.grid.step,
            "input_zero_point": self.input_zero_point,
            "output_zero_point": self.output_zero_point,
            "clamp_min": self.clamp[0],
            "clamp_max": self.clamp[1],
            "input_scale": self.input_scale,
            "output_scale": self.output_scale,
            "input_channels": features // (geometry.kernel[0] * geometry.kernel[1]) * geometry.groups,
            **geometry.fields,
        }

    @classmethod
    def unpack(cls, data: bytes | np.ndarray) -> PackedLayer:
        """Reads what `pack` wrote. Raises ValueError, with the reason, for anything else."""
        data = bytes(data)
        header = read_header(data)
        channels, features = int(header["output_channels"]), int(header["input_features"])
        geometry, grid = Geometry.read(header), _read_grid(data, header)
        planes = [
            np.frombuffer(data, np.uint8, plane_bytes(width, channels, features), int(offset))
            if grid.bits & width
            else None
            for width, offset in zip(PLANE_WIDTHS, header["plane_offset"], strict=True)
        ]
        multiplier, bias = records.read(data, header)
        layer = cls(
            codes=unpack_planes(planes, channels, features, panel_run(header["op"], channels, geometry.groups)),
            grid=grid,
            multiplier=multiplier,
            bias=bias,
            activation_type=ActivationType(header["activation_type"]),
            clamp=(int(header["clamp_min"]), int(header["clamp_max"])),
            op=Op(header["op"]),
            geometry=geometry,
            **{name: header[name].item() for name in _PLAIN_FIELDS},
        )
        if layer._is_int16:
            layer = replace(layer, bias=bias - split_bias(layer.weights))
        layer._check()
        # Only now: a shift may have left 32 bits.
        return layer if layer._is_int16 else replace(layer, bias=bias.astype(np.int32))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedLayer):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def _check(self) -> None:
        if self.codes.ndim != 2 or 0 in self.codes.shape:
            raise ValueError(f"codes must be [output_channels, input_features], not {self.codes.shape}")
        self.grid.check()
        bits = self.grid.bits
        if self.codes.min() < 0 or self.codes.max() >= 1 << bits:
            raise ValueError(f"codes run from {self.codes.min()} to {self.codes.max()}: not {bits} bits")
        channels, features = self.codes.shape
        for name in ("multiplier", "bias"):
            if getattr(self, name).shape != (channels,):
                raise ValueError(f"{name} must have one value for each of {channels} channels")
        if not np.all(np.isfinite(self.multiplier)):
            raise ValueError("a multiplier is not finite")
        if features > MAX_FEATURES:
            raise ValueError(f"{features} inputs a channel: the 32-bit sum is safe up to {MAX_FEATURES}")
        self._check_bias()
        self._check_geometry()
        self._check_activations()

    def _check_bias(self) -> None:
        features = self.codes.shape[1]
        largest_input, limit = (2**15 + 2**7, LARGEST_INT16_SUM) if self._is_int16 else (2**7, 2**31 - 1)
        room = limit - largest_input * features * self.grid.largest_magnitude
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


_PLAIN_FIELDS = ("input_scale", "output_scale", "input_zero_point", "output_zero_point")


def _read_grid(data: bytes, header: np.void) -> Grid:
    bits = int(header["weight_bits"])
    if header["decode"] == Decode.CODEBOOK:
        weights = np.frombuffer(data, np.int8, 1 << bits, int(header["codebook_offset"]))
        return Grid(bits, codebook=tuple(weights.tolist()))
    return Grid(bits, int(header["code_offset"]), int(header["code_step"]))


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
