"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from benchmarks import charts
from benchmarks import INSTALL
from benchmarks import report
from benchmarks.engine import Effort
from benchmarks.engine import measure
from benchmarks.engine import QUICK
from benchmarks.peers import is_missing
from benchmarks.peers import PEERS
from benchmarks.workloads import WORKLOADS


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or merge results.

    Args:
        arguments: Arguments of the command line, by default those of the
            process.
    """
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description='Measure this connector and its rivals side by side, '
        'print a summary, and write all results and tables to files.',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='Measure in less than a minute, with noisier numbers, '
        'instead of five to ten.',
    )
    parser.add_argument(
        '--only',
        action='append',
        choices=WORKLOADS,
        help='Measure this workload, and others only if the option is '
        'repeated (default: all).',
    )
    parser.add_argument(
        '--merge',
        nargs='+',
        type=Path,
        metavar='FILE',
        help='Measure nothing, but write the tables and charts of the '
        'documentation from the results (JSON) of several Pythons.',
    )
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('.benchmarks'),
        metavar='FOLDER',
        help='Write all files to this folder (default: %(default)s).',
    )
    options = parser.parse_args(arguments)
    for name in options.only or ():
        if is_missing(needed := WORKLOADS[name]):
            parser.error(
                f'{name} needs {needed}, which is not installed. {INSTALL}',
            )
    # Better now than after minutes of work.
    options.output.mkdir(parents=True, exist_ok=True)
    if options.merge:
        _merge(options.merge, options.output)
    else:
        effort = QUICK if options.quick else Effort()
        _measure(effort, options.only or WORKLOADS, options.output)


def _merge(files: Sequence[Path], folder: Path) -> None:
    try:
        runs = report.newest_first(map(report.Results.from_file, files))
    except ValueError as error:
        sys.exit(f'argument --merge: {error}')
    texts = {f'{run.about["tag"]}.md': report.full(run) for run in runs}
    texts['tables.md'] = report.markdown(runs)
    texts |= charts.draw(runs)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding='utf-8')
    print(f'Tables and charts: {folder}.')


def _measure(effort: Effort, chosen: Collection[str], folder: Path) -> None:
    needs = {f'workload {name}': needed for name, needed in WORKLOADS.items()}
    needs |= {f'peer {peer.name}': peer.needs for peer in PEERS}
    skipped = [
        f'{name} is skipped: {needed} is not installed.'
        for name, needed in needs.items()
        if is_missing(needed)
    ]
    if skipped:
        print(*skipped, INSTALL, sep='\n')
    there = [name for name in WORKLOADS if not is_missing(WORKLOADS[name])]
    workloads = [name for name in there if name in chosen]
    about = report.environment(effort)
    print(f'Measuring {", ".join(workloads)}.', flush=True)
    # Silent where standard error is no terminal.
    bar = partial(tqdm, disable=None, leave=False)
    run = report.Results(about, skipped, measure(effort, workloads, bar))
    results = folder / f'{about["tag"]}.json'
    tables = results.with_suffix('.md')
    results.write_text(run.to_json(), encoding='utf-8')
    tables.write_text(report.full(run), encoding='utf-8')
    print(report.summary(run))
    if effort.rounds == 1:
        print(
            'One short round: take no wait and no small difference for real.'
        )
    print(f'All tables: {tables}. Results: {results}.')
