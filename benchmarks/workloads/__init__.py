"""The workloads, one a file: its docstring says what its cases measure."""

from __future__ import annotations

# And the package that a workload needs.
WORKLOADS = {
    'price': '',
    'throughput': '',
    'waits': '',
    'growth': '',
    'batches': '',
    'objects': '',
    'store': 'proxystore',
    'memory': '',
    'torn': '',
    'owned': 'proxystore',
}
