"""Command line of the benchmarks, `python -m benchmarks`."""

from __future__ import annotations

import argparse
import runpy
import sys
import sysconfig
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path

EXTRAS = 'benchmarks,proxystore'
if sysconfig.get_config_var('Py_GIL_DISABLED'):
    EXTRAS = 'benchmarks'  # proxystore needs a Python with a GIL.
# Complete, and for the Python that runs this.
INSTALL = f"In the clone: {sys.executable} -m pip install '.[{EXTRAS}]'"

try:
    from benchmarks import report
    from benchmarks.engine import measure
    from benchmarks.peers import is_missing
    from benchmarks.peers import PEERS
    from benchmarks.workloads import Effort
    from benchmarks.workloads import QUICK
    from benchmarks.workloads import WORKLOADS
except ModuleNotFoundError as error:
    sys.exit(f'{error}. {INSTALL}')

EXAMPLES = Path(__file__).parents[1] / 'docs' / 'examples'


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
    # Better now than after minutes of work.
    options.output.mkdir(parents=True, exist_ok=True)
    if options.merge:
        try:
            from benchmarks import charts  # noqa: PLC0415 (for this alone)
        except ModuleNotFoundError as error:
            sys.exit(f'{error}. {sys.executable} -m pip install matplotlib')
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
    missing = [
        f'{name} is skipped: {it.needs} is not installed.'
        for name, it in (WORKLOADS | PEERS).items()
        if is_missing(it.needs)
    ]
    if missing:
        print(*missing, INSTALL, sep='\n')
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
