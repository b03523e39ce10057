"""Which layers of a float model get how many bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from .quantizers import Linear, Quantizer


@dataclass(frozen=True)
class Recipe:
    """What `quantize_model` makes of each layer.

    Example:
        Recipe(bits=4, layers={"stem*": 8, "block3_*": 2, "head": None})

    Attributes:
        bits: of the weights of every layer that nothing else is said of.
        layers: by name, a pattern such as "block*_conv": bits, a quantizer, or None to leave the layer in float. The
            first pattern that fits counts.
        first_last_bits: of the layers that no other layer with weights comes before, or after: they are small and see
            the model's input and output, and cost accuracy below 8 bits. None treats them as the others.
        quantizer: makes the quantizer of a layer from its bits.
        activation_bits: 2 to 8, or 9 to 16 in int16, of inputs and activations.
        power_of_two: scales of activations are powers of two, which makes Keras and the device agree bit for bit.
        parameter_bits: of bias, gain and batch normalization in stage 2; they take no more bytes on the device.
        keep_zeros: weights that are zero in the float model (pruned ones) stay zero through training.
    """

    bits: int = 4
    layers: Mapping[str, int | Quantizer | None] = field(default_factory=dict)
    first_last_bits: int | None = 8
    quantizer: Callable[[int], Quantizer] = Linear
    activation_bits: int = 8
    power_of_two: bool = True
    parameter_bits: int = 16
    keep_zeros: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for bits that do not exist."""
        patterns = {f"layers[{pattern!r}]": chosen for pattern, chosen in self.layers.items()}
        for name, chosen in {"bits": self.bits, "first_last_bits": self.first_last_bits, **patterns}.items():
            if isinstance(chosen, int) and chosen not in range(1, 9):
                raise ValueError(f"Recipe: {name} must be 1 to 8, not {chosen!r}")
        for name in ("activation_bits", "parameter_bits"):
            if getattr(self, name) not in range(2, 17):
                raise ValueError(f"Recipe: {name} must be 2 to 16, not {getattr(self, name)!r}")

    @classmethod
    def clustered(cls, **arguments: Any) -> Recipe:
        """A recipe for a model whose kernels have few distinct values each, as TFMOT's weight clustering leaves them.

        Equal weights stay equal in 8 bits, and the converter packs a kernel of 16 values in 4 bits without loss.
        Training would move them apart.

        Args:
            **arguments: other attributes.
        """
        return cls(**{"bits": 8, "quantizer": _one_grid, **arguments})

    def quantizer_of(self, name: str, is_first_or_last: bool) -> Quantizer | None:
        """The kernel quantizer of the layer `name`; None leaves it in float.

        Args:
            name: of the layer.
            is_first_or_last: no layer with weights comes before it, or none after it.
        """
        chosen: int | Quantizer | None = self.bits
        if is_first_or_last and self.first_last_bits is not None:
            chosen = self.first_last_bits
        chosen = next((value for pattern, value in self.layers.items() if fnmatchcase(name, pattern)), chosen)
        return self.quantizer(chosen) if isinstance(chosen, int) else chosen


def _one_grid(bits: int) -> Quantizer:
    return Linear(bits, per_channel=False)
