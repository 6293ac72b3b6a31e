"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import charts
from benchmarks import INSTALL
from benchmarks import report
from benchmarks.engine import measure
from benchmarks.peers import is_missing
from benchmarks.peers import PEERS
from benchmarks.workloads import Effort
from benchmarks.workloads import QUICK
from benchmarks.workloads import WORKLOADS


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or merge results, as the arguments of the command line say."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description='Measure this connector and its rivals side by side, '
        'print a summary, and write all figures to files.',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='Measure in less than a minute, with noisier numbers, '
        'instead of about five.',
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
        if is_missing(needed := WORKLOADS[name].needs):
            parser.error(
                f'{name} needs {needed}, which is not installed. {INSTALL}',
            )
    # Better now than after minutes of work.
    options.output.mkdir(parents=True, exist_ok=True)
    if options.merge:
        try:
            runs = [*map(report.Results.from_file, options.merge)]
        except ValueError as error:
            sys.exit(f'argument --merge: {error}')
        files = report.pages(runs) | dict(charts.draw(runs))
    else:
        effort = QUICK if options.quick else Effort()
        files = _measure(effort, options.only or [*WORKLOADS])
    for name, text in files.items():
        (options.output / name).write_text(text, encoding='utf-8')
    print(f'Written to {options.output}: {", ".join(files)}.')


def _measure(effort: Effort, chosen: Sequence[str]) -> dict[str, str]:
    """Measure, print a summary, and get files."""
    needs = {name: workload.needs for name, workload in WORKLOADS.items()}
    needs |= {peer.name: peer.needs for peer in PEERS}
    missing = {name: it for name, it in needs.items() if is_missing(it)}
    if missing:
        for name, package in missing.items():
            print(f'{name} is skipped: {package} is not installed.')
        print(INSTALL)
    there = [name for name in chosen if name not in missing]
    print(f'Measuring {", ".join(there)}.', flush=True)
    figures = measure(effort, there)
    run = report.Results(report.environment(effort), figures)
    print(report.summary(run))
    return {f'{run.tag}.json': run.to_json(), f'{run.tag}.md': run.to_page()}
