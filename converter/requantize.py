"""Fewer bits for weights that are there: the step of each channel by least squares.

A channel w becomes step * c, c on a grid of 2^bits integers, so that sum (w - step * c)^2 is the smallest there is.

For a given step the best c are the nearest values of the grid, so only those c count that some step has as nearest. On
the way of the step from infinity to 0 one weight after the other moves on to the next value of the grid: a weight w
past the midpoint m at step = w / m. So they can all be visited, and for given c the best step and what it explains are

    step = sum(w c) / sum(c c),    sum w^2 - sum (w - step * c)^2 = sum(w c)^2 / sum(c c).

Those with the largest last figure are the optimum, not one near it. From each c to the next both sums change by one
term.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from subbyte.schemas import Grid

from .integer_ops import LinearOp

#: A step is at least this share of the bias, so that the bias in units of it stays within 32 bits. Only channels of
#: hardly anything but zeros have smaller ones.
_SMALLEST_STEP = 2.0**-30


def best_step(weights: np.ndarray, grid: Grid) -> float:
    """The positive step with the smallest sum (w - step * c)^2, c the nearest values of `grid` to w / step.

    Args:
        weights: [features], real numbers.
        grid: evenly spaced, of both signs.

    Returns:
        The step; 0.0 where all weights are 0.
    """
    values, counts = np.unique(weights, return_counts=True)
    counts = counts[values != 0]
    values = values[values != 0].astype(np.float64)
    if not values.size:
        return 0.0
    levels = grid.weights
    turns, products, squares = [], [], []  # 1 / step where a code moves on, and what that adds to the sums
    started = np.zeros(2)  # sum(w c), sum(c c) while every code is the one nearest to 0 on its side
    for sign in (1, -1):
        side = sign * values > 0
        w, n = np.abs(values[side])[:, None], counts[side][:, None]
        c = np.sort(sign * levels[sign * levels >= 0]).astype(np.float64)
        started += (np.sum(n * w * c[0]), np.sum(n) * c[0] ** 2)
        turns.append(((c[1:] + c[:-1]) / 2 / w).ravel())
        products.append((n * w * np.diff(c)).ravel())
        squares.append((n * np.diff(c**2)).ravel())
    # Zeros take the value nearest to 0 whatever the step is.
    started[1] += np.count_nonzero(weights == 0) * np.abs(levels).min() ** 2
    order = np.argsort(np.concatenate(turns), kind="stable")
    product = started[0] + np.cumsum(np.concatenate([[0.0], np.concatenate(products)[order]]))
    square = started[1] + np.cumsum(np.concatenate([[0.0], np.concatenate(squares)[order]]))
    best = int(np.argmax(np.divide(product**2, square, out=np.zeros_like(square), where=square > 0)))
    return float(product[best] / square[best])


def requantize(op: LinearOp, bits: int) -> LinearOp:
    """The layer with weights of at most `bits` bits, each channel's step by `best_step`; scale and bias in new units.

    Of the grids of that width it takes the one that comes nearer to all weights together. A layer whose weights need no
    more bits as they are keeps them. The weights that were there become `real_weights`, in units of the new steps.
    """
    if op.grid.bits <= bits:
        return replace(op, real_weights=op.weights.astype(np.float64))
    return min((_on_grid(op, grid) for grid in Grid.candidates(bits)), key=_squared_error)


def _on_grid(op: LinearOp, grid: Grid) -> LinearOp:
    old_scale, bias = op.weight_scale.astype(np.float64), op.bias.astype(np.float64)
    step = np.array([best_step(channel, grid) for channel in op.weights])
    step = np.maximum(step, np.maximum(np.abs(bias), 1) * _SMALLEST_STEP)
    scale = (old_scale * step).astype(np.float32)
    step = scale / old_scale
    real_weights = op.weights / step[:, None]
    return replace(
        op,
        weights=grid.nearest(real_weights),
        weight_scale=scale,
        bias=np.rint(bias / step).astype(np.int32),
        grid=grid,
        real_weights=real_weights,
    )


def _squared_error(op: LinearOp) -> float:
    assert op.real_weights is not None, "requantized"
    return float(np.sum((op.weight_scale[:, None] * (op.real_weights - op.weights)) ** 2))
