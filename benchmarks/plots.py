"""Plots of what came out, as SVG that is legible in light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.peers import OURS
from benchmarks.report import Results
from benchmarks.workloads import ALIVE
from benchmarks.workloads import BATCHES
from benchmarks.workloads import Measurement
from benchmarks.workloads import MIXES
from benchmarks.workloads import of_alive
from benchmarks.workloads import of_mix
from benchmarks.workloads import of_stores
from benchmarks.workloads import of_threads
from benchmarks.workloads import of_writes
from benchmarks.workloads import SIZES
from benchmarks.workloads import STORE_THREADS
from benchmarks.workloads import THREADS
from benchmarks.workloads import WRITES

# Colours in light and in dark, by what they are used for. A plot is drawn
# with the light ones, and the browser chooses.
THEME = {
    'card': ('#fefefe', '#24262e'),
    'ink': ('#1f1f1e', '#eceef4'),
    'grid': ('#d9d9d8', '#474a55'),
}

# Peers in the order of their colours: ours is the one that stands out.
COLOURS = {
    OURS: ('#c62800', '#ff8a5c'),
    'Lock': ('#1565c1', '#7ab8ff'),
    'RLock': ('#00838e', '#4dd0e2'),
    'RWLockFair': ('#2e7d31', '#81c785'),
    'RWLockRead': ('#827718', '#d4e158'),
    'RWLockWrite': ('#5d4038', '#bcaaa5'),
    'fasteners': ('#6a1b9b', '#ce93d9'),
    'cereggii': ('#ad1458', '#f48fb2'),
    'AtomicDict': ('#455a65', '#90a4af'),
    'ProxyStore': ('#757576', '#bdbdbe'),
}
MARKERS = 'os^vD<>PX*'

SETTINGS: Any = {
    'axes.edgecolor': THEME['grid'][0],
    'axes.facecolor': THEME['card'][0],
    'axes.grid': True,
    'axes.labelcolor': THEME['ink'][0],
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlecolor': THEME['ink'][0],
    'axes.titlesize': 'medium',
    'figure.facecolor': THEME['card'][0],
    'font.size': 11,
    'grid.color': THEME['grid'][0],
    'legend.frameon': False,
    'legend.labelcolor': THEME['ink'][0],
    'lines.markersize': 4,
    'svg.fonttype': 'none',
    # The same plot is the same file.
    'svg.hashsalt': 'proxystore-local',
    'xtick.color': THEME['ink'][0],
    'ytick.color': THEME['ink'][0],
}

# By table, column and peer.
Cells = dict[tuple[str, str, str], Measurement]

WAITS = ('p50', 'p99', 'p99.9', 'max')


def plots(run: Results) -> Iterator[tuple[str, str]]:
    """Draw a run, as far as it was measured.

    Args:
        run: What to draw.

    Yields:
        Names of files, and SVG.
    """
    tag = run.about['tag']
    for draw, name, *more in (
        (_price, 'price'),
        (_throughput, 'throughput'),
        (_waits, 'waits'),
        (_growth, 'growth', 'batches', 'objects'),
        (_store, 'store'),
    ):
        cells = {
            (m.table, m.column, m.peer): m
            for m in run.measurements
            if m.workload in {name, *more}
        }
        if cells:
            with mpl.rc_context(SETTINGS):
                figure = draw(cells)
                yield (
                    f'{name}-{tag}.svg',
                    _svg(figure, f'{name}, Python {tag}'),
                )


def _svg(figure: Figure, title: str) -> str:
    """Write a figure, with colours that the browser chooses."""
    written = io.StringIO()
    figure.savefig(written, format='svg', metadata={'Date': None})
    svg = written.getvalue()
    names = {**THEME, **{f'c-{peer}': c for peer, c in COLOURS.items()}}
    for name, (light, _) in names.items():
        svg = svg.replace(light, f'var(--{name})')
    light_rules, dark_rules = (
        ' '.join(f'--{name}: {pair[n]};' for name, pair in names.items())
        for n in (0, 1)
    )
    # Text has the colour of the ink where nothing else is said.
    style = (
        f'<style>svg {{ {light_rules} }} '
        f'@media (prefers-color-scheme: dark) {{ svg {{ {dark_rules} }} }} '
        'text { fill: var(--ink); } '
        ':root { color-scheme: light dark; }</style>'
    )
    start = svg.index('<svg')
    return re.sub(
        r'(<svg[^>]*>)',
        lambda match: f'{match[1]}\n <title>{title}</title>\n {style}',
        svg[start:],
        count=1,
    )


def _axes(
    rows: int,
    columns: int,
    height: float,
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(9, height), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False)
    return figure, list(grid.flat)


def _legend(figure: Figure, axes: Axes) -> None:
    """Name the peers below all panels."""
    handles, labels = axes.get_legend_handles_labels()
    # Ours was drawn last, on top of the others.
    figure.legend(
        handles[::-1],
        labels[::-1],
        loc='outside lower center',
        ncols=5,
    )


def _peers(cells: Cells) -> list[str]:
    found = {peer for _, _, peer in cells}
    return [peer for peer in COLOURS if peer in found]


def _lines(
    axes: Axes,
    cells: Cells,
    places: Sequence[tuple[str, str]],
    ticks: Sequence[str],
) -> None:
    """Draw a line for each peer through its cells at these places."""
    for peer in reversed(_peers(cells)):
        points = [
            (x, cells[table, column, peer].value)
            for x, (table, column) in enumerate(places)
            if (table, column, peer) in cells
        ]
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            **_look(cells, peer),
        )
    axes.set_xticks(range(len(ticks)), ticks)


def _look(cells: Cells, peer: str) -> dict[str, Any]:
    safe = all(m.safe for m in cells.values() if m.peer == peer)
    return {
        'color': COLOURS[peer][0],
        'label': peer + '*' * (not safe),
        'linestyle': '-' if safe else ':',
        'linewidth': 2.5 if peer == OURS else 1.2,
        'marker': MARKERS[list(COLOURS).index(peer)],
        'zorder': 3 if peer == OURS else 2,
    }


def _price(cells: Cells) -> Figure:
    columns = list(dict.fromkeys(column for _, column, _ in cells))
    figure, (axes,) = _axes(1, 1, 5)
    for peer in reversed(_peers(cells)):
        points = [
            (cells['one thread', column, peer].value, y)
            for y, column in enumerate(columns)
            if ('one thread', column, peer) in cells
        ]
        look = _look(cells, peer) | {'linestyle': 'none'}
        if peer == OURS:
            look['markersize'] = 9
        axes.plot([x for x, _ in points], [y for _, y in points], **look)
    axes.set_xscale('log')
    axes.set_yticks(range(len(columns)), columns)
    axes.invert_yaxis()
    axes.set_xlabel('ns (lower is better)')
    _legend(figure, axes)
    return figure


def _throughput(cells: Cells) -> Figure:
    figure, panels = _axes(2, 3, 7)
    for axes, percent in zip(panels, WRITES):
        column = of_writes(percent)
        _lines(
            axes,
            cells,
            [(of_threads(threads), column) for threads in THREADS],
            [str(threads) for threads in THREADS],
        )
        axes.set_title(column)
        axes.set_yscale('log')
        axes.set_xlabel('threads')
    for axes in panels[::3]:
        axes.set_ylabel('k operations/s (higher is better)')
    panels[-1].remove()
    _legend(figure, panels[0])
    return figure


def _waits(cells: Cells) -> Figure:
    figure, panels = _axes(2, 3, 7)
    places = [(who, mix) for who in ('read', 'write') for mix in MIXES]
    for axes, (who, (readers, writers)) in zip(panels, places):
        table = of_mix(readers, writers)
        _lines(
            axes,
            cells,
            [(table, f'{who} {part}') for part in WAITS],
            WAITS,
        )
        axes.set_title(f'{who}s of {readers} readers + {writers} writers')
        axes.set_yscale('log')
    for axes in panels[::3]:
        axes.set_ylabel('us (lower is better)')
    _legend(figure, panels[0])
    return figure


def _growth(cells: Cells) -> Figure:
    figure, panels = _axes(2, 2, 7)
    for axes, title, unit, places, ticks in (
        (
            panels[0],
            'set, by live threads that have read',
            'ns',
            [('set after others have read', of_alive(n)) for n in ALIVE],
            [str(n) for n in ALIVE],
        ),
        (
            panels[1],
            'set and get, by size of the object',
            'ns',
            [('set and get', size) for size in SIZES],
            list(SIZES),
        ),
        *(
            (
                axes,
                f'{name}, by size of the batch',
                'ns/object',
                [(name, f'{size:,}') for size in BATCHES],
                ['1', '10', '100', '1k', '10k', '100k'],
            )
            for axes, name in zip(panels[2:], ('get_batch', 'put_batch'))
        ),
    ):
        _lines(axes, cells, places, ticks)
        axes.set_title(title)
        axes.set_ylabel(f'{unit} (lower is better)')
        axes.set_yscale('log')
    _legend(figure, panels[2] if panels[2].lines else panels[0])
    return figure


def _store(cells: Cells) -> Figure:
    figure, panels = _axes(2, 2, 7)
    for left, right in (panels[:2], panels[2:]):
        right.sharey(left)
        left.set_ylabel('k operations/s (higher is better)')
    ways = [(s, w) for w in (False, True) for s in (True, False)]
    for axes, way in zip(panels, ways):
        table = of_stores(*way)
        _lines(
            axes,
            cells,
            [(table, of_threads(threads)) for threads in STORE_THREADS],
            [str(threads) for threads in STORE_THREADS],
        )
        axes.set_title(table)
    for axes in panels[2:]:
        axes.set_xlabel('threads')
    _legend(figure, panels[0])
    return figure
