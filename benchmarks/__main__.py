"""What `python -m benchmarks` runs."""

from __future__ import annotations

import sys

# Each process that measures imports this file as well, by another name, and
# needs no plots.
if __name__ == '__main__':
    try:
        from benchmarks.command import main
    except ModuleNotFoundError as error:
        sys.exit(
            f'{error}. The benchmarks need more packages: in the clone, '
            "pip install '.[benchmarks]'",
        )
    main()
