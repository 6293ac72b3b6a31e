"""Benchmarks of this connector and its rivals.

The command line (`__main__`) lets the `engine` put all `peers` through the
`workloads`. What came out, `report` and `charts` show.
"""
