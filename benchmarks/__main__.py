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


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description='Measure this connector and its rivals side by side.',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='the same tables in half a minute, with noisier numbers',
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
        '--json',
        type=Path,
        metavar='FILE',
        help='write the results here as well',
    )
    options = parser.parse_args(arguments)
    if options.json:
        # Better now than after minutes of work.
        try:
            options.json.open('a').close()
        except OSError as error:
            parser.error(f'argument --json: {error}')
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report.

    Args:
        arguments: Arguments of the command line, by default those of the
            process.
    """
    options = _parse(arguments)
    effort = QUICK if options.quick else FULL
    if options.seconds:
        effort = dataclasses.replace(effort, seconds=options.seconds)
    peers, skipped = find_peers()
    about = report.environment()
    about['effort'] = ', '.join(
        f'{name} {value:,}'
        for name, value in dataclasses.asdict(effort).items()
    )
    print(report.header(about, peers, skipped), flush=True)

    cases = [
        case
        for name, workload in WORKLOADS.items()
        if not options.only or name in options.only
        for case in workload(effort)
    ]
    total = sum(case.rounds for case in cases) * len(peers)
    with tqdm(total=total, unit='run', file=sys.stderr) as bar:
        measurements = measure(cases, peers, bar.update)

    floors = report.floors(measurements)
    for table in report.tables(measurements):
        print(f'\n{table}')
    if floors:
        print(f'\n{report.floors_table(floors)}')
    if options.json:
        options.json.write_text(
            report.to_json(about, skipped, measurements, floors),
        )


if __name__ == '__main__':
    main()
