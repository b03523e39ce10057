"""Plots as SVG for a page: text stays text, colours are the page's, and the same data gives the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What stands for a colour of the page's style sheet until the SVG is written. No two are alike.
INK, QUIET = "#0a0000", "#0a0001"
SERIES = tuple(f"#0b000{number}" for number in range(1, 7))
_VARIABLES = {INK: "--ink", QUIET: "--rule"} | {color: f"--series-{i}" for i, color in enumerate(SERIES, start=1)}

_WIDTH = 4.6  # inches of 72 units: the text of 8.5 units is readable on a telephone and no poster on a desk
_TEXT = 8.5
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": _TEXT,
    "axes.titlesize": _TEXT,
    "axes.labelsize": _TEXT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": QUIET,
    "grid.linewidth": 0.5,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "path.simplify": True,
    "text.parse_math": False,
    "axes.unicode_minus": False,
}


def svg(name: str, draw: Callable[[Axes], None], height: float, label: str, width: float = _WIDTH) -> str:
    """The plot that `draw` makes, as an element for HTML.

    Args:
        name: unique in the page: what the SVG refers to inside itself is named by it.
        draw: draws on the axes it gets.
        height, width: in inches; the page scales it to its own width.
        label: for who cannot see it.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(cast(Any, _STYLE | {"svg.hashsalt": name})):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        draw(axes)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(written.getvalue(), label)


def _inline(document: str, label: str) -> str:
    """The svg element of matplotlib's document, without what a page has by itself or must not have twice."""
    element = document[document.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", element, flags=re.DOTALL)
    element = re.sub(r"<defs>\s*</defs>", "", element)
    view = re.search(r'viewBox="([^"]*)"', element)
    assert view is not None, "matplotlib writes one"
    head = f'<svg class="plot" role="img" aria-label="{_escape(label)}" viewBox="{view[1]}">'
    element = head + element[element.index(">") + 1 :]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', element))
    element = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", element)
    element = element.replace("xlink:href", "href")
    element = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", element)  # the page says which font
    element = re.sub(r"#0[ab]000\d", lambda found: f"var({_VARIABLES[found[0]]})", element)
    # A hundredth of a unit is enough for what is drawn; what is written stays.
    element = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag[0]), element)
    return re.sub(r"\s*\n\s*", "\n", element).strip()


def _escape(text: str) -> str:
    for character, entity in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return text


def stacked_bars(name: str, rows: Mapping[str, Mapping[str, float]], unit: str, label: str) -> str:
    """A bar for each row, of the parts in it one behind the other; the sum stands at its end.

    One of the rows has all the parts.
    """
    parts = max(rows.values(), key=len)

    def draw(axes: Axes) -> None:
        positions = np.arange(len(rows))
        left = np.zeros(len(rows))
        for part, color in zip(parts, SERIES, strict=False):
            lengths = np.array([row.get(part, 0.0) for row in rows.values()], float)
            axes.barh(positions, lengths, 0.66, left, color=color, label=part)
            left += lengths
        for position, total in zip(positions, left, strict=True):
            axes.annotate(f"{total:,.0f}", (total, position), (4, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, 1.17 * left.max())
        _rows(axes, list(rows), unit)
        legend(axes, list(parts))

    return svg(name, draw, 0.85 + 0.3 * len(rows), label)


def grouped_bars(name: str, rows: Sequence[str], series: Mapping[str, Sequence[float]], unit: str, label: str) -> str:
    """Draws for each row a group of bars, one of each series."""

    def draw(axes: Axes) -> None:
        thickness = 0.8 / len(series)
        for number, (title, lengths) in enumerate(series.items()):
            offsets = np.arange(len(rows)) + (number - (len(series) - 1) / 2) * thickness
            axes.barh(offsets, lengths, 0.9 * thickness, color=SERIES[number], label=title)
        _rows(axes, list(rows), unit)
        legend(axes, list(series))

    return svg(name, draw, 0.85 + 0.12 * len(rows) * (len(series) + 1), label)


def _rows(axes: Axes, rows: list[str], unit: str) -> None:
    axes.set_yticks(range(len(rows)), [short(row) for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}K" if value >= 1000 else f"{value:g}")
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x")
    axes.set_xlabel(unit)


def legend(axes: Axes, titles: list[str], handle: float = 1.0) -> None:
    """Draws the legend above the plot, in as many columns as there is room for, with lines `handle` letters long."""
    room = _WIDTH * 72 / (0.55 * _TEXT)  # in letters
    widths = [len(title) + 1.8 * handle + 3.5 for title in titles]
    columns = len(titles) if sum(widths) < room else max(1, int(room / max(widths)))
    axes.figure.legend(loc="outside upper left", ncols=columns, handlelength=handle, columnspacing=1.2)


def short(text: str, length: int = 22) -> str:
    """A name for a plot; a long one loses its middle."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-(length // 2) :]}"


def codes_and_values(
    name: str,
    codes: ArrayLike,
    shares: ArrayLike,
    label: str,
    density: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
) -> str:
    """Bars of the share of each code, and over them the density of the real values that were rounded to them.

    Args:
        name, label: see `svg`.
        codes: [n] rising, evenly spaced but for a codebook's, where the bars stand.
        shares: [n] of all codes; they add up to 1.
        density: heights [bins] in share a unit, and edges [bins + 1]; the bars have the width of the codes' distance.
    """
    codes, shares = np.asarray(codes, float), np.asarray(shares, float)
    step = float(np.diff(codes).min()) if len(codes) > 1 else 1.0

    def draw(axes: Axes) -> None:
        from matplotlib.patches import PathPatch

        axes.add_patch(
            PathPatch(_bars(codes, shares, step if len(codes) > 64 else 0.8 * step), facecolor=SERIES[0], linewidth=0)
        )
        highest = _highest_shown(shares)
        ends = [codes[0] - step, codes[-1] + step]
        if density is not None:
            heights, edges = density[0] * step, density[1]
            axes.stairs(heights, edges, color=SERIES[1], linewidth=1.2)
            highest = max(highest, min(heights.max(), 3 * highest))
            ends = [min(ends[0], edges[0]), max(ends[1], edges[-1])]
        axes.set_ylim(0, 1.08 * highest)
        axes.set_xlim(*ends)
        axes.set_title(_heights_of_cut_bars(codes, shares, 1.08 * highest), loc="left")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.locator_params(axis="y", nbins=3)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(axis="y")

    return svg(name, draw, height=1.5, width=3.2, label=label)


def _highest_shown(shares: NDArray[np.floating]) -> float:
    """The largest share, or less where one or two bars would leave nothing to see of the others."""
    third, second, first = np.sort(np.concatenate([np.zeros(3), shares]))[-3:]
    for height, cut in ((third, second), (second, first)):
        if 0 < 3 * height < cut:
            return float(1.2 * height)
    return float(first)


def _heights_of_cut_bars(codes: NDArray[np.floating], shares: NDArray[np.floating], top: float) -> str:
    """What stands above the plot: the height of each bar that is higher. Beside the bars two would overlap."""
    is_cut = shares > top
    return ", ".join(f"{share:.1%} at {code:.4g}" for code, share in zip(codes[is_cut], shares[is_cut], strict=True))


def _bars(centres: NDArray[np.floating], heights: NDArray[np.floating], width: float) -> Any:
    """All bars as one path: hundreds of them are written in a line each otherwise."""
    from matplotlib.path import Path

    left, right = centres - width / 2, centres + width / 2
    zeros = np.zeros_like(heights)
    corners = [(left, zeros), (left, heights), (right, heights), (right, zeros), (left, zeros)]
    vertices = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)[heights > 0].reshape(-1, 2)
    codes = np.tile([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], len(vertices) // 5)
    return Path(vertices, codes)
