"""Tells builds and people about the installed kernels.

python -m subbyte.kernels --cmake-dir     # for add_subdirectory(): the target `subbyte`, the kernels in C
python -m subbyte.kernels --delegate      # the plug-in, for benchmark_model --external_delegate_path
python -m subbyte.kernels --isas          # the instruction sets compiled in, best first
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __path__ as folders
from . import delegate_path, isas


def cmake_dir() -> Path:
    """The CMake project with the kernels' sources."""
    return next(Path(folder) for folder in folders if (Path(folder) / "CMakeLists.txt").is_file())


def main(arguments: list[str] | None = None) -> None:
    """Prints what one of the flags asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m subbyte.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags = parser.add_mutually_exclusive_group(required=True)
    for flag in ("--cmake-dir", "--delegate", "--isas"):
        flags.add_argument(flag, action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.cmake_dir:
            print(cmake_dir())
        elif chosen.delegate:
            print(delegate_path())
        else:
            for name, runs in isas().items():
                print(f"{name:16}{'runs here' if runs else 'not on this processor'}")
    except FileNotFoundError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
