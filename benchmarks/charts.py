"""Charts of results of several Pythons, drawn for a narrow screen."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from collections.abc import Sequence

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from matplotlib.ticker import NullLocator

from benchmarks import report

STYLE = (
    'seaborn-v0_8-whitegrid',
    {
        # On a light page or a dark one.
        'axes.facecolor': 'none',
        'figure.facecolor': 'none',
        'axes.edgecolor': 'gray',
        'grid.color': '#8884',
        'text.color': 'gray',
        'axes.labelcolor': 'gray',
        'xtick.color': 'gray',
        'ytick.color': 'gray',
        # Text stays text, and most ids stay the same.
        'svg.fonttype': 'none',
        'svg.hashsalt': 'proxystore-local',
    },
)
# Legible on white and on black.
SERIES = {
    'ProxyStore': ('#868686', 'D'),
    'RWLockFair': ('#2f9e44', '^'),
    'Lock': ('#1c7ed6', 's'),
    'ours': ('#e8590c', 'o'),
}
# In points.
WIDTH, ROW, REST = 350, 20, 46

# Names, what the horizontal axis has, and the rows.
CHARTS = {
    'price': (
        'ns a call, or an object of a batch (left is better)',
        [*report.CALLS, *report.BATCHES],
    ),
    'throughput': ('1000 calls/s (right is better)', report.THREADS),
    'waits': ('us, by readers + writers (left is better)', report.WAITS),
    'store': ('1000 calls/s (right is better)', report.STORE),
}

# By Python, by row, and by peer.
Panels = dict[str, dict[str, dict[str, float]]]


def draw(runs: Sequence[report.Results]) -> Iterator[tuple[str, str]]:
    """Draw all charts, of 3.13 and later: names of files, and SVG."""
    for name, (unit, places) in CHARTS.items():
        panels = {}
        for run in runs:
            rows = {
                place.partition('/')[2]: {
                    peer: run.value(place, peer)
                    for peer in SERIES
                    if peer in run.figures[place]
                }
                for place in places
                if place in run.figures
            }
            if rows and run.tag >= '3.13':
                panels[run.tag] = rows
        if not panels:
            continue
        # In the file, to tell if it shows these results.
        digest = hashlib.sha256(repr(panels).encode()).hexdigest()
        written = io.StringIO()
        with style.context(STYLE):
            _figure(unit, panels).savefig(
                written,
                format='svg',
                metadata={'Date': None, 'Description': digest},
            )
        yield f'{name}.svg', written.getvalue()


def _figure(unit: str, panels: Panels) -> Figure:
    """Draw a panel for each Python, under each other."""
    heights = [REST + ROW * len(rows) for rows in panels.values()]
    size = WIDTH / 72, (2 * REST + sum(heights)) / 72
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(
        len(panels), sharex=True, squeeze=False, height_ratios=heights
    )
    for axes, (title, rows) in zip(grid.flat, panels.items()):
        for peer, (colour, marker) in SERIES.items():
            some = {row: at[peer] for row, at in rows.items() if peer in at}
            axes.plot(
                [*some.values()],
                [*some],
                color=colour,
                label=peer,
                linestyle='none',
                marker=marker,
            )
        axes.set_title(f'Python {title}', fontsize='medium')
        axes.set_xscale('log')
        axes.xaxis.set_major_formatter('{x:,.7g}')
        low, high = axes.get_xlim()
        subs = (1, 3) if high < 1000 * low else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=5))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.invert_yaxis()
        axes.margins(y=0.5 / len(rows))
    figure.supxlabel(unit, fontsize='medium')
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(),
        reverse=True,
        loc='outside upper center',
        ncols=4,
        columnspacing=1,
        handletextpad=0.1,
    )
    return figure
