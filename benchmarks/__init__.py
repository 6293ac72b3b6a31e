"""Benchmarks of proxystore-local; run them with `python -m benchmarks`."""
