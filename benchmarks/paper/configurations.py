"""What is trained for which table of the paper (arXiv 2207.06920)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from subbyte.keyword_spotting.models import ARCHITECTURES, Architecture
from subbyte.keyword_spotting.train import RECOMMENDED, TrainingRecipe

#: Raise it when a change of the code moves what a training gives: kept models are then trained anew.
REVISION = 1

FULL = TrainingRecipe(updates=1_600)
#: The paper's ablations train a fifth as long: 100,000 of 500,000 updates.
ABLATION = replace(FULL, updates=FULL.updates // 5)


@dataclass(frozen=True)
class Configuration:
    """One model of a table.

    Attributes:
        name: a key, good for a file's name.
        plan: a model by name, or a dense architecture.
        recipe: of its training.
        quantizer: of the kernels, a name in `subbyte.keras_layers.quantizers`; "LinearLayer" is `Linear` with one grid
            for a layer; None is the model's own.
        bits: of a convolutional model.
    """

    name: str
    plan: str | Architecture
    recipe: TrainingRecipe = FULL
    quantizer: str | None = None
    bits: int | None = None

    def key(self, seed: int, data: str) -> str:
        """A file's name without suffix, the same for the same model."""
        plan = ARCHITECTURES.get(str(self.plan), self.plan)
        content = repr((REVISION, plan, self.recipe, self.quantizer, self.bits, data))
        return f"{self.name}-{seed}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def make_quantizer(self) -> Any:
        """The argument `quantizer` of `train`."""
        from subbyte.keras_layers import quantizers

        if self.quantizer == "LinearLayer":
            return _linear_layer
        return self.quantizer and getattr(quantizers, self.quantizer)


def _linear_layer(bits: int) -> Any:
    from subbyte.keras_layers import quantizers

    return quantizers.Linear(bits, per_channel=False)


def _ablation(name: str, bits: int, quantizer: str | None = None, **changes: Any) -> Configuration:
    """M0's sizes with weights of `bits`; what `changes` does not name has 16 bits, which stand for float."""
    wide: dict[str, Any] = {"activation_bits": 16, "parameter_bits": 16, "normalization_bits": 16}
    plan = replace(ARCHITECTURES["M2"].with_bits(bits), **(wide | changes))
    return Configuration(name, plan, ABLATION, quantizer)


def in_full(configurations: Sequence[Configuration]) -> tuple[Configuration, ...]:
    """The same, trained as long as the models are."""
    return tuple(replace(chosen, name=f"{chosen.name}-full", recipe=FULL) for chosen in configurations)


#: Tables 1 and 3.
MODELS = tuple(Configuration(name, name) for name in ("M0", "M1", "M2", "M3", "M4"))
#: Table 2: weights of 5 bits.
TANH = (
    _ablation("tanh-5", 5),
    _ablation("linear-5-layer", 5, "LinearLayer"),
    _ablation("linear-5-channel", 5, "Linear"),
)
#: Table 4: what is quantized to 8 bits, one thing after another.
LADDER = (
    _ablation("ladder-weights", 8),
    _ablation("ladder-gain", 8, parameter_bits=8),
    _ablation("ladder-activations", 8, parameter_bits=8, activation_bits=8),
    _ablation("ladder-bn", 8, parameter_bits=8, activation_bits=8, normalization_bits=8),
    _ablation("ladder-bn-plain", 8, parameter_bits=8, activation_bits=8, normalization_bits=8, scaling=None),
)
#: Section 6.2: fewer bits for activations, and for gain, bias and batch normalization.
WIDTHS = (
    Configuration("activations-5", replace(ARCHITECTURES["M2"], activation_bits=5)),
    Configuration("parameters-5", replace(ARCHITECTURES["M2"], parameter_bits=5, normalization_bits=5)),
)
#: Table 5, without and with the drop of the learning rate at the end of stage 1.
BINARY = tuple(
    Configuration(f"{name}-{schedule}", name, replace(FULL, schedule=schedule))
    for name in ("M5", "M6")
    for schedule in ("constant", "drop")
)
#: What we recommend for 4 bits, see docs/recipe.md; the paper's layers with its augmentation.
RECIPE = (
    *(
        Configuration(f"{name}-masked", name, replace(FULL, augmentation=RECOMMENDED.augmentation))
        for name in ("M0", "M4")
    ),
    Configuration("recommended", "tc_resnet_wide", RECOMMENDED, bits=4),
)
CONFIGURATIONS = (*MODELS, *TANH, *LADDER, *WIDTHS, *BINARY, *RECIPE, *in_full(TANH), *in_full(LADDER))
