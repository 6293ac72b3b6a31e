"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks import report
from benchmarks.peers import find_peers
from benchmarks.plots import plots
from benchmarks.workloads import FULL
from benchmarks.workloads import measure
from benchmarks.workloads import QUICK
from benchmarks.workloads import WORKLOADS


def _duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f'not a positive number: {text!r}')
    return seconds


def _results(text: str) -> report.Results:
    try:
        return report.Results.from_file(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description='Measure this connector and its rivals side by side.',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='the same tables in less than a minute, with noisier numbers',
    )
    parser.add_argument(
        '--only',
        action='append',
        choices=WORKLOADS,
        help='measure only this workload (may be repeated)',
    )
    parser.add_argument(
        '--seconds',
        type=_duration,
        help='duration of each run of throughput and waits',
    )
    parser.add_argument(
        '--merge',
        nargs='+',
        type=_results,
        metavar='FILE',
        help='measure nothing, but put results of several Pythons (JSON) '
        'side by side: plots, and tables in Markdown',
    )
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('.benchmarks'),
        metavar='FOLDER',
        help='write results (JSON), tables and plots (SVG) here (default: '
        '%(default)s)',
    )
    options = parser.parse_args(arguments)
    tags = [run.about['tag'] for run in options.merge or ()]
    if len(tags) != len(set(tags)):
        parser.error(
            'argument --merge: expected one result of each Python, not of '
            + ', '.join(tags),
        )
    # Better now than after minutes of work.
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f'argument --output: {error}')
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report.

    Args:
        arguments: Arguments of the command line, by default those of the
            process.
    """
    options = _parse(arguments)
    if options.merge:
        text = report.markdown(options.merge)
        print(text)
        _write(options.output / 'tables.md', text)
        runs = options.merge
    else:
        runs = [_run(options)]
    for run in runs:
        for name, svg in plots(run):
            _write(options.output / name, svg)


def _run(options: argparse.Namespace) -> report.Results:
    effort = QUICK if options.quick else FULL
    if options.seconds:
        effort = dataclasses.replace(effort, seconds=options.seconds)
    workloads = [
        name for name in WORKLOADS if name in (options.only or WORKLOADS)
    ]
    peers, skipped = find_peers()
    about = report.environment()
    about['effort'] = ', '.join(
        f'{name} {value:,}'
        for name, value in dataclasses.asdict(effort).items()
    )
    print(report.header(about, peers, skipped), flush=True)

    total = sum(
        case.rounds * len(peers)
        for name in workloads
        for case in WORKLOADS[name](effort)
    )
    with tqdm(total=total, unit='run', file=sys.stderr) as bar:
        run = report.Results(
            about,
            skipped,
            measure(effort, workloads, bar.update),
        )

    for table in report.tables(run.measurements):
        print(f'\n{table}')
    if floors := report.floors(run.measurements):
        print(f'\n{report.floors_table(floors)}')
    print()
    _write(options.output / f'{about["tag"]}.json', run.to_json())
    return run


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding='utf-8')
    print(f'wrote {path}', file=sys.stderr)
