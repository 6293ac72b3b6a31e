"""What `python -m benchmarks` runs."""

from __future__ import annotations

import sys

from benchmarks import INSTALL

if __name__ == '__main__':
    try:
        from benchmarks.command import main

        main()
    except ModuleNotFoundError as error:
        sys.exit(f'{error}. {INSTALL}')
    except OSError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit('interrupted')
