"""Tests of proxystore-local."""
