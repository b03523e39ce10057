"""Finds the keyword in a recording and cuts the window of 27 frames that has it in its centre.

The paper trains with the keyword "always centred" (arXiv 2207.06920, section 2) and takes its place from an aligner.
Here a recording holds one keyword and otherwise quiet, so short-time energy is enough. Functions work on mel energies
[frames, MEL_BINS], 10 ms a frame, before the logarithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .features import FRAMES, KEEP_EVERY

LONGEST_KEYWORD = 110  # frames
SMOOTHING = 5  # frames
ABOVE_QUIET, BELOW_PEAK = 6.0, 30.0  # dB; speech is both
OUTER_MASS = 0.03  # of the loudness left outside either end, so that a click or a breath does not count

Floats = NDArray[np.floating[Any]]


def keyword_span(energies: Floats) -> tuple[int, int]:
    """The first and the last frame of the keyword in `energies` [frames, MEL_BINS].

    Loudness is the level in dB above a threshold that lies over the recording's own quiet. The stretch of at most 1.1 s
    that gathers most of it is the keyword; its ends are where 3 % of that loudness has come and where 3 % is to come.
    A recording of constant level has no such stretch and is all keyword.
    """
    level = 10.0 * np.log10(energies[:, 2:].sum(axis=1) + 1e-6)  # without the two lowest bands: hum
    margin = SMOOTHING // 2
    level = np.convolve(np.pad(level, margin, mode="edge"), np.full(SMOOTHING, 1.0 / SMOOTHING), "valid")
    threshold = max(np.percentile(level, 10) + ABOVE_QUIET, level.max() - BELOW_PEAK)
    total = np.concatenate([[0.0], np.cumsum(np.maximum(level - threshold, 0.0))])  # [frames + 1], of the frames before
    length = min(LONGEST_KEYWORD, len(level))
    first = int(np.argmax(total[length:] - total[:-length]))
    gathered = total[first : first + length + 1] - total[first]
    if gathered[-1] <= 0.0:
        return 0, len(level) - 1
    share = gathered[1:] / gathered[-1]
    return first + int(np.searchsorted(share, OUTER_MASS)), first + int(np.searchsorted(share, 1.0 - OUTER_MASS))


def keyword_centre(energies: Floats) -> float:
    """The frame midway between the beginning and the end of the keyword; see `keyword_span`."""
    return sum(keyword_span(energies)) / 2


def pad_with_quiet(energies: Floats, frames: int) -> Floats:
    """`energies` with `frames` frames of the recording's own quiet (10th percentile of each band) on both sides."""
    quiet = np.repeat(np.percentile(energies, 10, axis=0, keepdims=True), frames, axis=0).astype(energies.dtype)
    return np.concatenate([quiet, energies, quiet])


def cut_windows(energies: Floats, starts: NDArray[np.integer[Any]]) -> Floats:
    """Windows [len(starts), KEPT_FRAMES, MEL_BINS] of `energies` [frames, MEL_BINS] from the frames `starts`."""
    return energies[starts[:, np.newaxis] + np.arange(0, FRAMES, KEEP_EVERY)]
