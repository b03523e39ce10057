"""Which extra of the package brings a library, said in one line where it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

#: The smallest extra for each library that is imported, by the name of its module.
EXTRAS = {
    "numpy": "run",
    "ai_edge_litert": "run",
    "absl": "convert",
    "flatbuffers": "convert",
    "rich": "convert",
    "tensorflow": "train",
    "tf_keras": "train",
    "tensorflow_model_optimization": "train",
    "jinja2": "report",
    "matplotlib": "report",
    "espeakng_loader": "kws",
    "scipy": "kws",
    "soundfile": "listen",
    "sounddevice": "listen",
    "soxr": "listen",
    "ai_edge_quantizer": "bench",
}


@contextmanager
def needed_by(what: str) -> Iterator[None]:
    """Raises ImportError, naming the extra to install, where an import in the block finds a library missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        line = missing(error)
        if line is None:
            raise
        # The library's name is kept: whoever imports this in turn asks for it again.
        raise ModuleNotFoundError(f"{what} {line}", name=error.name) from None


def missing(error: ModuleNotFoundError, extra: str | None = None) -> str | None:
    """Says "needs" such a library, and how to install it; None where no extra brings it, or the error says so itself.

    Args:
        error: what an import raised.
        extra: all that its caller needs; default: the smallest extra that brings the library.
    """
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS or (extra is None and "pip install" in str(error)):
        return None
    return f"needs {library}: pip install 'subbyte[{extra or EXTRAS[library]}]'"
