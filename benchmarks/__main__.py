"""What `python -m benchmarks` runs."""

from __future__ import annotations

import os
import sys

if __name__ == '__main__':
    try:
        from benchmarks.command import main

        try:
            main()
        finally:
            sys.stdout.flush()
    except ModuleNotFoundError as error:
        sys.exit(
            f'{error}. The benchmarks need more packages. In the clone: '
            f"{sys.executable} -m pip install '.[benchmarks]'",
        )
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Nobody reads any more. Python would complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
