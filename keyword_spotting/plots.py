"""Plots of what detectors reach, for the page that compares them: drawn as `reports.figures` draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subbyte.reports import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: For lines that cross: whoever sees no colours, or prints without, tells them by these.
_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (9, 3)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D")  # in the second, third... turn of the colours


def tradeoffs(
    name: str, curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]], label: str, least: float
) -> str:
    """Detection error tradeoffs on normal-deviate axes, each with a band.

    Args:
        name, label: see `reports.figures.svg`.
        curves: false-alarm rates, miss rates, and the lower and upper ends of the band around these, [n] each.
        least: rate below which nothing can be told apart; smaller ones, zeros too, are drawn there.
    """
    from scipy.special import ndtri

    ticks = np.array([0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4])

    def deviate(rates: ArrayLike) -> NDArray[np.floating]:
        deviates: NDArray[np.floating] = ndtri(np.clip(np.asarray(rates, float), least, 0.5))
        return deviates

    def draw(axes: Axes) -> None:
        ends = []
        for number, (title, (alarms, misses, low, high)) in enumerate(curves.items()):
            color, x = figures.SERIES[number % len(figures.SERIES)], deviate(alarms)
            axes.fill_between(x, deviate(low), deviate(high), color=color, alpha=0.1, linewidth=0)
            dashes = _DASHES[(number + number // len(figures.SERIES)) % len(_DASHES)]  # another in each turn of colours
            axes.plot(x, deviate(misses), color=color, linestyle=dashes, linewidth=1.5, label=figures.short(title))
            ends += [x.min(), x.max()]
        for set_ticks, first in ((axes.set_xticks, min(ends)), (axes.set_yticks, ndtri(least))):
            seen = ticks[ndtri(ticks) >= first - 1e-9]
            set_ticks(ndtri(seen), [f"{100 * tick:.3g}%" for tick in seen])
        axes.set_xlim(min(ends), max(ends))
        axes.set_ylim(ndtri(least), None)
        axes.set_xlabel("false alarms, share of trials")
        axes.set_ylabel("misses, share of keywords")
        axes.grid(axis="both")
        figures.legend(axes, [*map(figures.short, curves)], handle=2.5)

    return figures.svg(name, draw, 3.9, label)


def points_with_intervals(
    name: str, points: Mapping[str, tuple[float, float, float, float]], x_label: str, y_label: str, label: str
) -> str:
    """Named points over a logarithmic axis: x, y, and the ends of y's interval; y as a share."""

    def draw(axes: Axes) -> None:
        for number, (title, (x, y, low, high)) in enumerate(points.items()):
            color = figures.SERIES[number % len(figures.SERIES)]
            marker = _MARKERS[number // len(figures.SERIES) % len(_MARKERS)]
            style: dict[str, Any] = {"color": color, "marker": marker, "markersize": 4, "capsize": 2, "linewidth": 1.2}
            axes.errorbar(x, y, yerr=[[y - low], [high - y]], label=figures.short(title), **style)
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.set_ylim(0, None)
        axes.xaxis.set_major_locator(_powers_of_two(points))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}K")
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="y")
        figures.legend(axes, [*map(figures.short, points)])

    return figures.svg(name, draw, 2.8 + 0.05 * len(points), label)


def _powers_of_two(points: Mapping[str, tuple[float, float, float, float]]) -> Any:
    """Ticks that double from the smallest to the largest x, in round thousands."""
    from matplotlib.ticker import FixedLocator

    largest = max(x for x, *_ in points.values())
    smallest = min(x for x, *_ in points.values())
    ticks = 1000.0 * 2.0 ** np.arange(0, 20)
    return FixedLocator(list(ticks[(ticks >= smallest / 2.1) & (ticks <= largest * 2.1)]))
