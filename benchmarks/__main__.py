"""What `python -m benchmarks` runs."""

from __future__ import annotations

import runpy
import sys
from importlib import import_module
from pathlib import Path

from benchmarks import INSTALL

EXAMPLES = Path(__file__).parents[1] / 'docs' / 'examples'


def main() -> None:
    """Run the command line, if the packages that it needs are installed."""
    try:
        command = import_module('benchmarks.command')
    except ModuleNotFoundError as error:
        sys.exit(f'{error}. {INSTALL}')
    command.main()


if __name__ == '__main__':
    # Ctrl-C, a closed pipe and a wrong file end it as they end the examples.
    runpy.run_path(str(EXAMPLES / 'command.py'))['run'](main)
