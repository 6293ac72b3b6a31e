"""Command line of the benchmarks, `python -m benchmarks`."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path

try:
    from benchmarks import report
    from benchmarks.engine import measure
    from benchmarks.peers import is_missing
    from benchmarks.peers import PEERS
    from benchmarks.workloads import Effort
    from benchmarks.workloads import QUICK
    from benchmarks.workloads import WORKLOADS
except ModuleNotFoundError as error:
    command = f"{sys.executable} -m pip install '.[benchmarks]'"
    sys.exit(f'{error}. In the clone: {command}')

EXAMPLES = Path(__file__).parents[1] / 'docs' / 'examples'


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or merge results, as the arguments of the command line say."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description='Measure this connector and its rivals side by side.',
    )
    parser.add_argument(
        '--quick', action='store_true', help='take a minute, not five'
    )
    parser.add_argument(
        '--only',
        action='append',
        choices=WORKLOADS,
        help='measure this workload; repeat it for more (default: all)',
    )
    parser.add_argument(
        '--merge',
        nargs='+',
        type=Path,
        metavar='FILE',
        help='make the tables and charts of these results (JSON) instead',
    )
    parser.add_argument(
        '--output',
        type=Path,
        default='.benchmarks',
        metavar='FOLDER',
        help='where to write all files (default: %(default)s)',
    )
    options = parser.parse_args(arguments)
    # Better now than after minutes of work.
    options.output.mkdir(parents=True, exist_ok=True)
    if options.merge:
        # For this alone, as it needs matplotlib.
        from benchmarks import charts  # noqa: PLC0415

        runs = report.read(options.merge)
        files = report.pages(runs) | dict(charts.draw(runs))
    else:
        effort = QUICK if options.quick else Effort()
        files = _measure(effort, options.only or WORKLOADS)
    for name, text in files.items():
        (options.output / name).write_text(text, encoding='utf-8')
    print(f'Written to {options.output}: {", ".join(files)}.')


def _measure(effort: Effort, chosen: Iterable[str]) -> dict[str, str]:
    """Measure, print a summary, and get files."""
    for name, it in (WORKLOADS | PEERS).items():
        if is_missing(it.needs):
            print(f'{name} is skipped: {it.needs} is not installed.')
    there = [name for name in chosen if not is_missing(WORKLOADS[name].needs)]
    if not there:
        sys.exit('nothing to measure')
    print(f'Measuring {", ".join(there)}.', flush=True)
    run = report.Results(report.environment(effort), measure(effort, there))
    print(report.summary(run))
    return {f'{run.tag}.json': run.to_json(), f'{run.tag}.md': run.to_page()}


if __name__ == '__main__':
    # Ctrl-C, a closed pipe and a wrong file end it as they end the examples.
    runpy.run_path(str(EXAMPLES / 'command.py'))['run'](main)
