"""How a layer with a quantized kernel ships, beside `quantizers`, which say what its weights are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .folding import MOST_SCALE_BITS, most_bias

GAINS = ("scalar", "channel", None)


@dataclass(frozen=True)
class Deployment:
    """What the deployed op of a layer stores beside its weights, and how wide.

    A layer takes one as `deployment=`, and each attribute as a keyword argument of its own:

        QuantDense(8, deployment=Deployment(scale_bits=4))
        QuantDense(8, scale_bits=4)

    Attributes:
        gain: "scalar", one for each output "channel", or None for none.
        parameter_bits: the width of bias and gain in stage 2, 2 to 16.
        bias_resolution: the folded bias is an integer in 1/bias_resolution of the folded scale, a power of two. Inputs
            need a scale of at most 1/bias_resolution at conversion.
        scale_bits: how many bits the fraction of a channel's folded scale has, 1 to 8. With 8, scale and bias take 4
            bytes a channel in the file. With fewer they take 2: 2 bits for the scale's exponent, these, and what is
            left for the bias, which needs a `bias_resolution` that is coarse enough; where it does not fit they take
            4 bytes again.
        keep_zeros: weights that are zero when `set_float_weights` is called stay zero through training.
        input_bits: 16 where the activation quantizer before the layer has more than 8 bits. The layer then sums in
            float64, since float32 does not hold the integers.

    Raises:
        ValueError: a value that does not exist.
    """

    gain: str | None = "scalar"
    parameter_bits: int = 8
    bias_resolution: float = 16.0
    scale_bits: int = MOST_SCALE_BITS
    keep_zeros: bool = False
    input_bits: int = 8

    def __post_init__(self) -> None:
        if self.gain not in GAINS:
            raise ValueError(f"gain must be 'scalar', 'channel' or None, not {self.gain!r}")
        _check_integer("parameter_bits", self.parameter_bits, 2, 16)
        if self.bias_resolution not in [2.0**e for e in range(-16, 17)]:
            raise ValueError(
                f"bias_resolution must be a power of two from 2^-16 to 65536, not {self.bias_resolution!r}"
            )
        _check_integer("scale_bits", self.scale_bits, 1, MOST_SCALE_BITS)
        if not isinstance(self.keep_zeros, bool):
            raise ValueError(f"keep_zeros must be True or False, not {self.keep_zeros!r}")
        if self.input_bits not in (8, 16):
            raise ValueError(f"input_bits must be 8 or 16, not {self.input_bits!r}")

    @property
    def most_bias(self) -> float:
        """The largest folded bias that shares 16 bits with a scale of fewer than 8 `scale_bits`."""
        return most_bias(self.scale_bits)

    def get_config(self) -> dict[str, Any]:
        """The attributes as keyword arguments of a layer, which is how its own config stores them."""
        return asdict(self)


def _check_integer(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be {low} to {high}, not {value!r}")


def take_keywords(arguments: dict[str, Any]) -> dict[str, Any]:
    """Takes the attributes of a `Deployment` out of a layer's keyword arguments, and returns them."""
    return {field.name: arguments.pop(field.name) for field in fields(Deployment) if field.name in arguments}


def get(owner: str, deployment: Deployment | None, keywords: Mapping[str, Any]) -> Deployment:
    """The deployment of the layer `owner`: `deployment`, or the default one, with what the keywords replace in it.

    Raises:
        TypeError, ValueError: something else than a deployment, or a value that does not exist; they name the layer.
    """
    if deployment is not None and not isinstance(deployment, Deployment):
        raise TypeError(f"{owner}: deployment must be a Deployment, not {deployment!r}")
    try:
        return replace(deployment or Deployment(), **keywords)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None
