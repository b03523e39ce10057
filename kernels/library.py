"""Finds the compiled library."""

from pathlib import Path

_NAMES = ("libsubbyte_delegate.so", "libsubbyte_delegate.dylib", "subbyte_delegate.dll")


def delegate_path() -> Path:
    """The TFLite plug-in, for `load_delegate` and for `benchmark_model --external_delegate_path`.

    Raises FileNotFoundError where subbyte was not built.
    """
    # An editable install keeps the sources in the tree and the library in site-packages: the package has both folders.
    from . import __path__ as folders

    for folder in folders:
        for name in _NAMES:
            path = Path(folder) / name
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"the compiled subbyte kernels are in none of {', '.join(map(str, folders))}: "
        "install subbyte with pip, or rebuild with pip install --no-build-isolation -e ."
    )
