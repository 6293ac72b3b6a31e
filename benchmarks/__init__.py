"""Benchmarks of this connector and its rivals.

The command line (`command`) lets the `engine` put all `peers` through the
`workloads`. What came out, `report` and `charts` show.
"""

from __future__ import annotations

import sys
import sysconfig

FREE_THREADED = bool(sysconfig.get_config_var('Py_GIL_DISABLED'))

# Complete, and for the Python that runs this.
INSTALL = f'In the clone: {sys.executable} -m pip install ' + (
    "'.[benchmarks]'; proxystore needs a Python with a GIL."
    if FREE_THREADED
    else "'.[benchmarks,proxystore]'"
)
