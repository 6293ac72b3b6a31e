"""Charts of results of several Pythons, for light and dark pages alike."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.peers import OURS
from benchmarks.peers import PEERS
from benchmarks.report import Place
from benchmarks.report import Results
from benchmarks.report import RIVALS
from benchmarks.workloads import growth
from benchmarks.workloads import objects
from benchmarks.workloads import price
from benchmarks.workloads import store
from benchmarks.workloads import throughput
from benchmarks.workloads.batches import BATCHES
from benchmarks.workloads.batches import STATEMENTS
from benchmarks.workloads.throughput import of_threads
from benchmarks.workloads.throughput import of_writes
from benchmarks.workloads.waits import MIXES
from benchmarks.workloads.waits import of_mix

# Legible on white and on black.
GREY = '#7d7d7d'
SETTINGS: Any = {
    'axes.edgecolor': GREY,
    'axes.grid': True,
    'axes.grid.axis': 'y',
    'axes.labelcolor': GREY,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlesize': 'medium',
    'font.sans-serif': ['DejaVu Sans'],
    'grid.alpha': 0.3,
    'grid.color': GREY,
    'lines.markeredgewidth': 0,
    'lines.markersize': 5,
    'savefig.transparent': True,
    'svg.fonttype': 'none',
    # The same chart is the same file.
    'svg.hashsalt': 'proxystore-local',
    'text.color': GREY,
    'xtick.bottom': False,
    'xtick.color': GREY,
    'xtick.labelsize': 'small',
    'ytick.color': GREY,
    'ytick.left': False,
}
MARKERS = 'os^vD<>PX*'

# A panel: its title, and what stands at each mark of the horizontal axis.
Panel = tuple[str, dict[str, Place]]


WRITES: list[Panel] = [
    (
        of_writes(percent),
        {
            str(n): ('throughput', of_threads(n), of_writes(percent))
            for n in throughput.THREADS
        },
    )
    for percent in (10, 100)
]
PRICES: list[Panel] = [
    (
        'calls',
        {
            name: ('price', price.TABLE, name)
            for name in ('get', 'set', 'evict', 'put')
        },
    ),
    (
        'batches of 1000',
        {name: ('price', price.TABLE, f'{name}/obj') for name in STATEMENTS},
    ),
]
WAITS: list[Panel] = [
    (
        f'{who}s',
        {
            f'{readers} + {writers}': (
                'waits',
                of_mix(readers, writers),
                f'{who} p99',
            )
            for readers, writers in MIXES
        },
    )
    for who in ('read', 'write')
]
STORES: list[Panel] = [
    (
        store.of_stores(*way).replace(', ', ',\n'),
        {
            str(n): ('store', store.of_stores(*way), of_threads(n))
            for n in store.THREADS
        },
    )
    for way in store.WAYS
]
GROWTH: list[Panel] = [
    (
        'set, by readers alive',
        {str(n): ('growth', growth.TABLE, f'{n} alive') for n in growth.ALIVE},
    ),
    (
        'set + get, by size',
        {
            size.replace(' ', '').replace('iB', ''): (
                'objects',
                objects.TABLE,
                size,
            )
            for size in objects.SIZES
        },
    ),
]
SIZES: list[Panel] = [
    (
        name,
        {
            f'{n:,}'.replace(',000', 'k'): ('batches', name, f'{n:,}')
            for n in BATCHES
        },
    )
    for name in STATEMENTS
]
NS = 'ns a call, or an object of a batch (less is better)'
CALLS = '1000 calls/s, by threads (more is better)'
US = 'p99 in us, by readers + writers (less is better)'
FEW = (OURS, *RIVALS)
ALL = tuple(peer.name for peer in PEERS)

# Name, unit, panels for each Python (two make a row), and peers.
CHARTS: Sequence[tuple[str, str, list[Panel], Sequence[str]]] = (
    ('price', NS, PRICES, FEW),
    ('throughput', CALLS, WRITES, FEW),
    ('waits', US, WAITS, FEW),
    ('price-all', NS, PRICES, ALL),
    ('throughput-all', CALLS, WRITES, ALL),
    ('waits-all', US, WAITS, ALL),
    ('growth-all', 'ns (less is better)', GROWTH, ALL),
    ('batches-all', 'ns an object (less is better)', SIZES, ALL),
    ('store-all', CALLS, STORES, ALL),
)


def draw(runs: Sequence[Results]) -> Iterator[tuple[str, str]]:
    """Draw all charts that there are results for.

    Args:
        runs: Runs of several Pythons, newest first. Charts of all peers show
            only the first and the last.

    Yields:
        Names of files, and SVG.
    """
    for name, unit, panels, peers in CHARTS:
        places = {place for _, marks in panels for place in marks.values()}
        rows = {
            run.about['tag']: {
                (place, peer): cell[peer].value
                for place, cell in run.cells().items()
                for peer in peers
                if place in places and peer in cell
            }
            for run in (runs if peers is FEW else (runs[0], runs[-1]))
        }
        if rows := {tag: values for tag, values in rows.items() if values}:
            with matplotlib.rc_context(SETTINGS):
                yield f'{name}.svg', _svg(_figure(unit, panels, rows), rows)


def _svg(figure: Figure, rows: object) -> str:
    written = io.StringIO()
    # In the file, to tell if it shows these results.
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()
    about = {'Date': None, 'Description': digest}
    figure.savefig(written, format='svg', metadata=about)
    # A tenth of a point is more than anybody sees.
    return re.sub(r'(\.\d)\d{3,}', r'\1', written.getvalue())


def _figure(
    unit: str,
    panels: Sequence[Panel],
    rows: dict[str, dict[tuple[Place, str], float]],
) -> Figure:
    both = [*itertools.product(rows.items(), panels)]
    height = len(both) // 2
    figure = Figure(figsize=(4.7, 2 + 0.9 * height), layout='constrained')
    grid = figure.subplots(height, 2, sharex='col', sharey=True, squeeze=False)
    legend = {}
    # Operations and mixes have no order that a line could show.
    loose = panels in (PRICES, WAITS)
    # Ours last, on top of the others.
    for number, peer in reversed([*enumerate(PEERS)]):
        for ((tag, values), (title, marks)), axes in zip(both, grid.flat):
            points = [
                (x, values[place, peer.name])
                for x, place in enumerate(marks.values())
                if (place, peer.name) in values
            ]
            if points:
                (legend[peer.label],) = axes.plot(
                    *zip(*points),
                    color=peer.colour,
                    linestyle='none' if loose else '-',
                    linewidth=2.5 if peer.name == OURS else 1.2,
                    marker=MARKERS[number],
                    markevery=1 if loose else [-1],
                )
            axes.set_title(f'{tag}: {title}')
            axes.set_yscale('log')
            axes.yaxis.set_major_formatter('{x:,g}')
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_xticks(range(len(marks)), [*marks])
            axes.margins(x=0.25)
    figure.supxlabel(unit, fontsize='medium')
    figure.legend(
        [*legend.values()][::-1],
        [*legend][::-1],
        loc='outside upper center',
        ncols=4,
        frameon=False,
        handlelength=1.2,
        columnspacing=1,
    )
    return figure
