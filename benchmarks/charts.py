"""Charts of results of several Pythons."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.peers import OURS
from benchmarks.peers import Peer
from benchmarks.peers import PEERS
from benchmarks.report import Cell
from benchmarks.report import Results
from benchmarks.report import RIVALS

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
        # Text stays text, and the same chart is the same file.
        'svg.fonttype': 'none',
        'svg.hashsalt': 'proxystore-local',
        'xtick.labelsize': 'small',
    },
)
MARKERS = 'os^vD<>PX*'


class Chart(NamedTuple):
    """What a chart shows.

    Attributes:
        unit: What the vertical axis has, and which values are good.
        line: How marks are joined, if they have an order.
        panels: Titles of two panels a row, and what is in each: a pattern of
            workload/table/column, whose group is the mark.
    """

    unit: str
    line: str
    panels: Mapping[str, str]


CHARTS = {
    'price': Chart(
        'ns a call, or an object of a batch (less is better)',
        'none',
        {
            'calls': 'price/one thread/(get|set|evict|put)',
            'batches of 1000': 'price/one thread/(.*)/obj',
        },
    ),
    'throughput': Chart(
        '1000 calls/s, by threads (more is better)',
        '-',
        {
            '10 % writes': r'throughput/(\d+) threads?/10 % writes',
            '100 % writes': r'throughput/(\d+) threads?/100 % writes',
        },
    ),
    'waits': Chart(
        'p99 in us, by readers + writers (less is better)',
        'none',
        {
            'reads': r'waits/readers \+ writers: (.*)/read p99',
            'writes': r'waits/readers \+ writers: (.*)/write p99',
        },
    ),
    'growth': Chart(
        'ns (less is better)',
        '-',
        {
            'set, by readers alive': r'growth/.*/(\d+) alive',
            'set + get, by size': 'objects/.*/(.*)',
        },
    ),
    'batches': Chart(
        'ns an object (less is better)',
        '-',
        {
            'get_batch': 'batches/get_batch/(.*)',
            'put_batch': 'batches/put_batch/(.*)',
        },
    ),
    'store': Chart(
        '1000 calls/s, by threads (more is better)',
        '-',
        {
            f'{stores},\n{task}': rf'store/{stores}.*, {task}/(\d+) threads?'
            for task in ('computing', '1 ms of waiting')
            for stores in ('one Store', 'a Store a thread')
        },
    ),
}


def draw(runs: Sequence[Results]) -> Iterator[tuple[str, str]]:
    """Draw all charts.

    Args:
        runs: Runs of several Pythons, newest first. Charts of all peers show
            only the first and the last.

    Yields:
        Names of files, and SVG.
    """
    rivals = [peer for peer in PEERS if peer.name in (OURS, *RIVALS)]
    for name in ('price', 'throughput', 'waits'):
        yield f'{name}.svg', _svg(CHARTS[name], rivals, runs)
    for name, chart in CHARTS.items():
        yield f'{name}-all.svg', _svg(chart, PEERS, [runs[0], runs[-1]])


def _svg(chart: Chart, peers: Sequence[Peer], runs: Sequence[Results]) -> str:
    panels = {
        f'{run.about["tag"]}: {title}': marks
        for run in runs
        for title, pattern in chart.panels.items()
        if (marks := _find(run, pattern))
    }
    written = io.StringIO()
    # In the file, to tell if it shows these results.
    digest = hashlib.sha256(repr(panels).encode()).hexdigest()
    about = {'Date': None, 'Description': digest}
    with style.context(STYLE):
        figure = _figure(chart, peers, panels)
        figure.savefig(written, format='svg', metadata=about)
    return written.getvalue()


def _find(run: Results, pattern: str) -> dict[str, Cell]:
    """Get what stands at each mark."""
    return {
        match[1]: cell
        for place, cell in run.cells().items()
        if (match := re.fullmatch(pattern, place))
    }


def _figure(
    chart: Chart, peers: Sequence[Peer], panels: Mapping[str, dict[str, Cell]]
) -> Figure:
    height = len(panels) // 2
    figure = Figure(figsize=(7, 2 + 1.3 * height), layout='constrained')
    grid = figure.subplots(height, 2, sharex='col', sharey=True, squeeze=False)
    for axes, (title, marks) in zip(grid.flat, panels.items()):
        for peer, marker in zip(peers, MARKERS):
            values = {
                mark: cell[peer.name].value
                for mark, cell in marks.items()
                if peer.name in cell
            }
            if values:
                axes.plot(
                    [*values],
                    [*values.values()],
                    color=peer.colour,
                    label=peer.label,
                    linestyle=chart.line,
                    marker=marker,
                    # Ours on top of the others.
                    linewidth=3 if peer.name == OURS else 1.5,
                    zorder=3 if peer.name == OURS else 2,
                )
        axes.margins(x=0.15)
        axes.set_title(title)
        axes.set_yscale('log')
        axes.yaxis.set_major_formatter('{x:,g}')
        axes.yaxis.set_minor_locator(NullLocator())
    figure.supxlabel(chart.unit)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=5)
    return figure
