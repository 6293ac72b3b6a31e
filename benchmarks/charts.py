"""Charts of results of several Pythons, for light and for dark pages."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

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

# matplotlib's styles, and what is ours.
THEMES = {'light': 'default', 'dark': 'dark_background'}
SETTINGS: Any = {
    'axes.grid': True,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlesize': 'medium',
    'grid.alpha': 0.3,
    'lines.markersize': 4,
    'savefig.transparent': True,
    'svg.fonttype': 'none',
    # The same chart is the same file.
    'svg.hashsalt': 'proxystore-local',
}
MARKERS = 'os^vD<>PX*'

# A panel: its title, and what stands at each mark of the horizontal axis.
Panel = tuple[str, dict[str, Place]]


def _writes(percent: int) -> Panel:
    return of_writes(percent), {
        str(n): ('throughput', of_threads(n), of_writes(percent))
        for n in throughput.THREADS
    }


PRICES: list[Panel] = [
    (
        'calls',
        {
            name: ('price', price.TABLE, name)
            for name in ('get', 'set', 'evict', 'put')
        },
    ),
    (
        'of 1000',
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
        {size: ('objects', objects.TABLE, size) for size in objects.SIZES},
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
NS = 'ns (less is better)'
CALLS = '1000 calls/s, by threads (more is better)'
US = 'p99 in us, by readers + writers (less is better)'
FEW = (OURS, *RIVALS)
ALL = tuple(peer.name for peer in PEERS)

# Name, unit, columns of panels, and peers. Each Python is a row of panels.
CHARTS: Sequence[tuple[str, str, list[Panel], Sequence[str]]] = (
    ('price', NS, PRICES, FEW),
    ('throughput', CALLS, [_writes(10), _writes(100)], FEW),
    ('waits', US, WAITS, FEW),
    ('price-all', NS, PRICES, ALL),
    ('throughput-all', CALLS, [*map(_writes, (0, 10, 100))], ALL),
    ('waits-all', US, WAITS, ALL),
    ('growth-all', NS, GROWTH, ALL),
    ('batches-all', 'ns an object (less is better)', SIZES, ALL),
    ('store-all', CALLS, STORES, ALL),
)


def draw(runs: Sequence[Results]) -> Iterator[tuple[str, str]]:
    """Draw all charts that there are results for.

    Args:
        runs: Runs of several Pythons, in the order of the rows.

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
            for run in runs
        }
        rows = {tag: values for tag, values in rows.items() if values}
        # In the file, to tell if it shows these results.
        digest = hashlib.sha256(repr(rows).encode()).hexdigest()
        for theme, style in THEMES.items() if rows else ():
            with matplotlib.style.context([style, SETTINGS]):
                written = io.StringIO()
                _figure(unit, panels, rows).savefig(
                    written,
                    format='svg',
                    metadata={'Date': None, 'Description': digest},
                )
            yield f'{name}-{theme}.svg', written.getvalue()


def _figure(
    unit: str,
    panels: Sequence[Panel],
    rows: dict[str, dict[tuple[Place, str], float]],
) -> Figure:
    figure = Figure(
        figsize=(1 + 2.1 * len(panels), 1 + 1.25 * len(rows)),
        layout='constrained',
    )
    grid = figure.subplots(
        len(rows),
        len(panels),
        sharex='col',
        sharey=True,
        squeeze=False,
    )
    legend = {}
    # Ours last, on top of the others.
    for number, peer in reversed([*enumerate(PEERS)]):
        for (tag, values), line in zip(rows.items(), grid):
            for (title, marks), axes in zip(panels, line):
                points = [
                    (x, values[place, peer.name])
                    for x, place in enumerate(marks.values())
                    if (place, peer.name) in values
                ]
                drawn = axes.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    color=peer.colour,
                    linestyle='-.' if peer.lacks else '-',
                    linewidth=2.5 if peer.name == OURS else 1.2,
                    marker=MARKERS[number],
                )
                # Operations have no order that a line could show.
                if panels is PRICES:
                    drawn[0].set_linestyle('none')
                if points:
                    legend[peer.label] = drawn[0]
                axes.set_title(f'{tag}: {title}')
                axes.set_yscale('log')
                axes.set_xticks(range(len(marks)), [*marks])
                axes.margins(x=0.25)
    figure.supylabel(unit)
    names = [*legend][::-1]
    figure.legend(
        [legend[name] for name in names],
        names,
        loc='outside upper center',
        ncols=min(2 * len(panels), 5),
        frameon=False,
        handlelength=1.2,
        columnspacing=1,
    )
    return figure
