"""Speed, memory and load time of packed models on this machine, beside the stock interpreter's: `make bench`.

    python -m benchmarks.kernels                                 # every table
    python -m benchmarks.kernels --sections host --isa avx2      # some, with that instruction set
    python -m benchmarks.kernels --write docs/benchmarks.md      # and puts them into the page
    python -m benchmarks.kernels --quick                         # small networks, few rounds: under a minute

Prints Markdown. docs/benchmarks.md says how each figure is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from subbyte import kernels
from subbyte.reports import Stopwatch, Timing, processor_name

from . import conv_networks, convolutions
from .fresh import Loading, load_fresh
from .machine import Probe
from .networks import Model, Network, PackedFormat, forced_isa
from .peers import INT16_FORMAT, STOCK_NAMES
from .plan import Plan, against, microseconds
from .tables import figure, markdown_table, write_section

TINY = Network((1, 1))
PAPER = Network((540, 87, 400, 87, 400, 87, 400, 2))
NARROW = (PAPER, Network((540, 88, 400, 88, 400, 88, 400, 2)), Network((256,) * 5), Network((1024,) * 5))
WIDE = (Network((2048,) * 5), Network((4096,) * 3))
EVEN_FORMATS = tuple(PackedFormat(bits) for bits in (8, 4, 2, 1))
STEPS = ("construct", "allocate", "first_invoke", "seconds")  # of a Loading
LOADED_STOCK = ("float32", "int8", "int4", "int2, dynamic")
ISA_NETWORKS = (PAPER, Network((1024,) * 5))
ONE_LAYER = (Network((256, 256)), Network((1024, 1024)))
ROWS = (1, 4, 10, 100)
READ_SIZES = {"16 KiB": 16 << 10, "512 KiB": 512 << 10, "8 MiB": 8 << 20, "256 MiB": 256 << 20}


def host(plan: Plan) -> str:
    """Microseconds an invoke of every format, and what limits them."""
    timings: dict[str, dict[str, Timing]] = {}
    sizes: dict[str, dict[str, int]] = {}
    for network in (TINY, *plan.networks):
        models = plan.models(network)
        timings[network.name] = plan.time(models)
        sizes[network.name] = {model.name: model.constant_bytes() for model in models}
    networks = [network.name for network in plan.networks]
    weights = {network.name: network.weights for network in plan.networks}

    def table(columns: Sequence[str], cell: Callable[[str, str], str]) -> str:
        names = list(timings[TINY.name])
        return markdown_table(["weights", *columns], ([name, *(cell(n, name) for n in columns)] for name in names))

    def spread(network: str, name: str) -> str:
        timing = timings[network][name]
        return f"{microseconds(timing.minimum)} to {microseconds(timing.ninth_decile)}"

    def rate(quantity: Callable[[str, str], int]) -> Callable[[str, str], str]:
        return lambda network, name: figure(1e-9 * quantity(network, name) / timings[network][name].median)

    return "\n\n".join(
        [
            "Microseconds an invoke, one thread; in brackets, how many times as fast as the best stock model. "
            f"{TINY.name} is one weight: what Python and the interpreter take.",
            table([TINY.name, *networks], lambda network, name: against_best_stock(timings[network], name)),
            "Fastest round, and the time that nine rounds in ten kept to, in microseconds:",
            table([TINY.name, *networks], spread),
            "Weights a nanosecond:",
            table(networks, rate(lambda network, name: weights[network])),
            "Weight bytes read, GB/s:",
            table(networks, rate(lambda network, name: sizes[network][name])),
            limits(plan),
        ]
    )


def int16(plan: Plan) -> str:
    """The paper's network with 16-bit activations, its M1, beside 8-bit ones."""
    widths = (8, 5, 4)
    formats = [PackedFormat(bits, int16=wide) for bits in widths for wide in (True, False)]
    timings = plan.time(plan.models(PAPER, formats, ("float32", "int8", INT16_FORMAT.name)))
    rows = [(f"packed {bits}", f"packed {bits}, int16", f"packed {bits}") for bits in widths]
    cells = [
        [
            name,
            microseconds(timings[wide].median),
            microseconds(timings[narrow].median),
            f"{timings[wide].median / timings[narrow].median:.2f}",
            f"{timings[INT16_FORMAT.name].median / timings[wide].median:.1f}",
        ]
        for name, wide, narrow in [*rows, ("stock int8", INT16_FORMAT.name, "int8")]
    ]
    heads = ("weights", "int16", "int8", "int16 of int8", "stock 16x8 of int16")
    return "\n\n".join(
        [
            f"{PAPER.name}, microseconds an invoke by activations, one thread; stock float32 takes "
            f"{microseconds(timings['float32'].median)}:",
            markdown_table(heads, cells),
        ]
    )


def limits(plan: Plan) -> str:
    """What the processor can do at most, one thread."""
    probe = Probe(plan.folder)
    bandwidths = probe.read_bandwidth(list(READ_SIZES.values()), plan.stopwatch)
    clock = probe.clock(plan.stopwatch)
    return "\n\n".join(
        [
            f"The limits, by plain loops in C in the same run: {1e-9 * clock:.2f} GHz, and reading",
            markdown_table(
                ["the same", *READ_SIZES], [["GB/s", *(figure(1e-9 * bandwidth) for bandwidth in bandwidths)]]
            ),
        ]
    )


def isas(plan: Plan) -> str:
    """Each instruction set of this processor, at each width."""
    parts = []
    for network in ISA_NETWORKS:
        models = plan.models(network, stock=())
        interpreters = {(isa, model.name): model.interpreter(isa=isa) for isa in runnable_isas() for model in models}
        timings = plan.stopwatch.time_in_turn({key: found.invoke for key, found in interpreters.items()})
        cells = [[isa, *(microseconds(timings[isa, model.name].median) for model in models)] for isa in runnable_isas()]
        parts += [
            f"{network.name}, microseconds an invoke, one thread:",
            markdown_table(["instruction set", *(model.name for model in models)], cells),
        ]
    return "\n\n".join(parts)


def threads(plan: Plan) -> str:
    """Wide networks with more threads. Each count by itself: idle threads of a pool spin for a while."""
    counts = range(1, plan.threads + 1)
    parts = []
    for network in [network for network in plan.networks if min(network.widths) >= 1024]:
        models = plan.models(network, EVEN_FORMATS, ("int8", "int4"))
        columns = [plan.time(models, threads=count) for count in counts]
        cells = [[model.name, *(microseconds(timings[model.name].median) for timings in columns)] for model in models]
        parts += [
            f"{network.name}, microseconds an invoke, by threads:",
            markdown_table(["weights", *map(str, counts)], cells),
        ]
    return "\n\n".join(parts)


def rows(plan: Plan) -> str:
    """One layer on several rows of input at once."""
    parts = []
    for network in ONE_LAYER:
        models = plan.models(network, EVEN_FORMATS, ("int8", "int4"))
        columns = [plan.time(models, rows=count) for count in ROWS]
        cells = [[model.name, *(against_best_stock(timings, model.name) for timings in columns)] for model in models]
        parts += [
            f"One layer of {network.name}, microseconds an invoke by rows of input, one thread; in brackets, how many "
            "times as fast as the better stock model:",
            markdown_table(["weights", *map(str, ROWS)], cells),
        ]
    return "\n\n".join(parts)


def memory(plan: Plan) -> str:
    """Bytes that an inference reads, and RAM that loading and one invoke take."""
    parts = []
    for name, models in loaded_models(plan):
        cells = []
        for model, (loading,) in loadings(plan, models, 1):
            beyond = loading.heap - loading.tiny_heap - loading.arena
            cells.append(
                [model.name, *(f"{size:,}" for size in (model.constant_bytes(), loading.arena, loading.heap, beyond))]
            )
        parts += [
            f"{name}, bytes:",
            markdown_table(["weights", "constants", "arena", "heap", "heap beyond arena and interpreter"], cells),
        ]
    return "\n\n".join(parts)


def loaded_models(plan: Plan) -> Iterator[tuple[str, list[Model]]]:
    """Networks whose memory is measured, and some formats of each."""
    for network in (plan.networks[0], plan.networks[-1]):
        yield network.name, plan.models(network, EVEN_FORMATS, LOADED_STOCK)
    conv_stock = [name for name in conv_networks.STOCK_NAMES if name in LOADED_STOCK]
    for conv_network in convolutions.NETWORKS:
        yield conv_network.name, conv_networks.conv_models(conv_network, plan.folder, EVEN_FORMATS, conv_stock)


def load(plan: Plan) -> str:
    """Time until the first result."""
    network = plan.networks[-1]
    found = loadings(plan, plan.models(network, EVEN_FORMATS, LOADED_STOCK), plan.loads)
    int8 = next(statistics.median(one.seconds for one in loads) for model, loads in found if model.name == "int8")
    cells = []
    for model, loads in found:
        medians = [statistics.median(getattr(one, step) for one in loads) for step in STEPS]
        cells.append([model.name, *(figure(1e3 * value) for value in medians), f"{100 * medians[-1] / int8:.1f} %"])
    return "\n\n".join(
        [
            f"{network.name} from a file in the page cache, milliseconds in a new process, medians of {plan.loads}:",
            markdown_table(["weights", "constructor", "allocate", "first invoke", "together", "of int8"], cells),
        ]
    )


def loadings(plan: Plan, models: Sequence[Model], times: int) -> list[tuple[Model, list[Loading]]]:
    """Models, each loaded `times` times, in turn."""
    tiny_folder = plan.folder / "tiny"
    tiny_folder.mkdir(exist_ok=True)
    tiny_plan = dataclasses.replace(plan, folder=tiny_folder)
    tiny = {model.name: model for model in tiny_plan.models(TINY, EVEN_FORMATS, LOADED_STOCK)}
    loads: list[list[Loading]] = [[] for _ in models]
    for _ in range(times):
        for model, found in zip(models, loads, strict=True):
            found.append(load_fresh(model, tiny[model.name]))
    return list(zip(models, loads, strict=True))


SECTIONS: dict[str, Callable[[Plan], str]] = {
    section.__name__: section
    for section in (
        host,
        int16,
        isas,
        threads,
        rows,
        convolutions.conv_networks,
        convolutions.conv_layers,
        memory,
        load,
    )
}


def against_best_stock(timings: Mapping[str, Timing], name: str) -> str:
    """Microseconds, and how many times as fast as the fastest stock model among them."""
    best = min((stock for stock in STOCK_NAMES if stock in timings), key=lambda stock: timings[stock].median)
    return against(timings, name, best)


def runnable_isas() -> list[str]:
    """Best first."""
    return [name for name, runs in kernels.isas().items() if runs]


def conditions() -> str:
    """What the figures depend on, in a line."""
    isa = os.environ.get("SUBBYTE_ISA") or runnable_isas()[0]
    return (
        f"{processor_name()}, {os.cpu_count()} cores, {isa}; ai-edge-litert {version('ai-edge-litert')}, "
        f"{datetime.date.today().isoformat()}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--isa", choices=runnable_isas(), help="of packed models; default: the best one")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="the most of them, in section threads")
    parser.add_argument("--quick", action="store_true", help="small networks and few rounds: to try it out")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a page with markers, into which the tables go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, forced_isa(options.isa):
        plan = Plan(
            networks=NARROW if options.quick else NARROW + WIDE,
            stopwatch=Stopwatch(rounds=5, seconds=1e-3) if options.quick else Stopwatch(),
            loads=3 if options.quick else 11,
            threads=options.threads,
            folder=Path(folder),
        )
        for name in options.sections:
            text = f"{conditions()}\n\n{SECTIONS[name](plan)}"
            print(f"## {name}\n\n{text}\n", flush=True)
            if options.write:
                write_section(options.write, name, text)


if __name__ == "__main__":
    main()
