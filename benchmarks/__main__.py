"""What `python -m benchmarks` runs."""

from __future__ import annotations

import os
import sys

from benchmarks import INSTALL

if __name__ == '__main__':
    try:
        from benchmarks.command import main

        try:
            main()
        finally:
            sys.stdout.flush()
    except ModuleNotFoundError as error:
        sys.exit(f'{error}. {INSTALL}')
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Nobody reads any more. Python would complain as it flushes again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        sys.exit(str(error))
