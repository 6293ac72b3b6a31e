"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn

from tqdm import tqdm

from benchmarks import report
from benchmarks.engine import Effort
from benchmarks.engine import measure
from benchmarks.engine import QUICK
from benchmarks.peers import is_missing
from benchmarks.peers import PEERS
from benchmarks.workloads import WORKLOADS

# Complete, and for the Python that runs this.
INSTALL = (
    f"In the clone: {sys.executable} -m pip install '.[benchmarks"
    f"{'' if report.FREE_THREADED else ',proxystore'}]'"
)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description='Measure this connector and its rivals side by side, '
        'print a summary, and write all results and tables to files.',
        add_help=False,
    )
    parser.add_argument(
        '-h',
        '--help',
        action='help',
        help='Show this help and exit.',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='Measure everything in less than a minute, with noisier '
        'numbers. By default it takes five to ten minutes.',
    )
    parser.add_argument(
        '--only',
        action='append',
        choices=WORKLOADS,
        help='Measure only this workload. The option may be repeated. By '
        'default, all are measured.',
    )
    parser.add_argument(
        '--merge',
        nargs='+',
        type=Path,
        metavar='FILE',
        help='Measure nothing, but read results (JSON) of several Pythons, '
        'print what is lost on each, and write the tables and charts of the '
        'documentation.',
    )
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('.benchmarks'),
        metavar='FOLDER',
        help='Write files to this folder. The default is %(default)s.',
    )
    options = parser.parse_args(arguments)

    def fail(message: str) -> NoReturn:
        # In one line, without the usage.
        parser.exit(2, f'{parser.prog}: error: {message}\n')

    try:
        read = map(report.Results.from_file, options.merge or ())
        options.merge = report.newest_first(read)
    except (OSError, ValueError) as error:
        fail(f'argument --merge: {error}')
    tags = [run.about['tag'] for run in options.merge]
    if len(tags) != len(set(tags)):
        fail(
            'argument --merge: expected one result of each Python, not of '
            + ', '.join(tags),
        )
    for name in options.only or ():
        if is_missing(needed := WORKLOADS[name]):
            fail(
                f'argument --only: {name} needs {needed}, which is not '
                f'installed{_why(needed) or f". {INSTALL}"}',
            )
    # Better now than after minutes of work.
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=options.output).close()
    except OSError as error:
        fail(f'argument --output: {error}')
    return options


def _why(package: str) -> str:
    if package == 'proxystore' and report.FREE_THREADED:
        return ', and cannot be on free-threaded builds.'
    return ''


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or merge results.

    Args:
        arguments: Arguments of the command line, by default those of the
            process.
    """
    options = _parse(arguments)
    if options.merge:
        # Only this needs matplotlib.
        charts = import_module('benchmarks.charts')
        runs = options.merge
        pages = {f'{run.about["tag"]}.md': report.full(run) for run in runs}
        files = {'tables.md': report.markdown(runs), **pages}
        for name, text in itertools.chain(files.items(), charts.draw(runs)):
            _write(options.output / name, text)
        print(report.overview(runs))
        print(f'All tables and charts: {options.output}.')
    else:
        _measure(options)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding='utf-8')
    except OSError as error:
        sys.exit(str(error))


def _measure(options: argparse.Namespace) -> None:
    effort = QUICK if options.quick else Effort()
    missing = {
        name: needed
        for name, needed in (
            *(
                (f'workload {name}', needed)
                for name, needed in WORKLOADS.items()
            ),
            *((f'peer {peer.name}', peer.needs) for peer in PEERS),
        )
        if is_missing(needed)
    }
    workloads = [
        name
        for name in WORKLOADS
        if name in (options.only or WORKLOADS)
        and f'workload {name}' not in missing
    ]
    skipped = [
        f'{name} is skipped: {needed} is not installed{_why(needed) or "."}'
        for name, needed in missing.items()
    ]
    for sentence in skipped:
        print(sentence)
    if not all(map(_why, missing.values())):
        print(INSTALL)
    about = report.environment()
    about['effort'] = ', '.join(
        f'{name} {value:,}'
        for name, value in dataclasses.asdict(effort).items()
    )
    print(f'Measuring {", ".join(workloads)}.', flush=True)
    # Silent where standard error is no terminal.
    with tqdm(total=100, unit='%', disable=None, leave=False) as bar:
        measurements = measure(
            effort,
            workloads,
            lambda percent: bar.update(percent - bar.n),
        )
    run = report.Results(about, skipped, measurements)
    results = options.output / f'{about["tag"]}.json'
    tables = results.with_suffix('.md')
    _write(results, run.to_json())
    _write(tables, report.full(run))
    print(report.summary(run))
    print(f'All tables: {tables}. Results: {results}.')
