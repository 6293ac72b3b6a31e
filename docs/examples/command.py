"""What the examples share as commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path


def find_files(folder: Path) -> list[Path]:
    """Find the *.py files in a folder, without installed packages."""
    files = [
        file
        for file in sorted(folder.rglob('*.py'))
        if file.is_file()
        and 'site-packages' not in file.relative_to(folder).parts
    ]
    if not files:
        sys.exit(f'no *.py files in {folder}')
    return files


def run(main: Callable[[], None]) -> None:
    """Run a command: whatever ends it early takes no more than one line."""
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Nobody reads any more. Python would complain as it flushes again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        sys.exit(str(error))
