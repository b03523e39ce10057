"""Fixtures that several test files use."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import browser as chromium
import pytest

#: Files that take longest, in that order: what starts last would run alone.
SLOW = (
    "test_converter_nets",
    "test_keyword_spotting_pipeline",
    "test_kernels_build",
    "test_converter_models",
    "test_keras_layers_quantize_model",
    "test_converter_command",
    "test_kernels_arm",
    "test_kernels_check",
    "test_benchmarks_paper",
    "test_converter_conv",
    "test_keras_layers_conv",
    "test_readme",
    "test_keras_layers_exactness",
    "test_keras_layers_stages",
    "test_keyword_spotting_detector",
    "test_firmware",
    "test_reports",
    "test_keyword_spotting_report",
    "test_kernels_dsp",
    "test_kernels_threads",
    "test_op_resolver",
    "test_keras_layers_tfmot",
    "test_benchmarks_accelerator",
    "test_benchmarks_third_party",
)


def pytest_configure() -> None:
    """Stops where `SLOW` has a file that is gone or has another name now."""
    # TensorFlow's graphs are many small objects that stay: Python's own interval would look through them all the time.
    gc.set_threshold(50_000, 20, 20)
    gone = [name for name in SLOW if not (Path(__file__).parent / f"{name}.py").is_file()]
    if gone:
        raise pytest.UsageError(f"tests/conftest.py lists files that do not exist: {', '.join(gone)}")


#: What chooses the Keras version, as the run began.
_LEGACY = os.environ.get("TF_USE_LEGACY_KERAS")


def pytest_runtest_setup() -> None:
    """Takes back what importing TFMOT sets for every process that is started later."""
    if _LEGACY is None:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the slow files first and marks their tests."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    """Chromium, opened once for a file."""
    if reason := chromium.missing():
        pytest.skip(reason)
    opened = chromium.Browser()
    yield opened
    opened.close()
