"""Fixtures that several test files use."""

from __future__ import annotations

from collections.abc import Iterator

import browser as chromium
import pytest


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    """Chromium, opened once for a file."""
    if reason := chromium.missing():
        pytest.skip(reason)
    opened = chromium.Browser()
    yield opened
    opened.close()
