"""Says what is installed.

python -m subbyte             # version, packages, the instruction sets of the kernels that run here
python -m subbyte --version
"""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version

from . import __version__

#: Commands of the package, and what each is for.
_COMMANDS = {
    "convert-to-tflite": "convert a Keras model, a SavedModel or a .tflite",
    "python -m subbyte.kernels": "where the plug-in and the C sources are",
    "python -m subbyte.keyword_spotting": "train, evaluate and run a wake-word model",
}
_PACKAGES = ("numpy", "ai-edge-litert", "tensorflow", "tf-keras", "tensorflow-model-optimization")


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _instruction_sets() -> str:
    from .kernels import isas

    try:
        return ", ".join(name for name, runs in isas().items() if runs)
    except FileNotFoundError as error:
        return str(error)


def main(arguments: list[str] | None = None) -> None:
    """Prints the version, or all that helps to understand a report of a fault."""
    parser = argparse.ArgumentParser(
        prog="python -m subbyte", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"subbyte {__version__}")
    parser.parse_args(arguments)
    print(f"subbyte {__version__}\n")
    print(f"{'instruction sets':32}{_instruction_sets()}")
    for package in _PACKAGES:
        print(f"{package:32}{_installed(package)}")
    print()
    for command, purpose in _COMMANDS.items():
        print(f"{command:36}{purpose}")


if __name__ == "__main__":
    main()
