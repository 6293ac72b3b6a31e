"""Compress many files with workers that are threads, processes or Dask's.

By default the files are the source files of the running Python's standard
library. The driver puts their contents in a ProxyStore `Store`, workers
compress them with a shared dictionary, and the driver restores each file from
what a worker made and compares.

The driver and the work are the same code wherever the workers run. Two things
are handed in: the connector, which says where the objects are, and the
executor, which says where the workers are.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import sysconfig
import time
import zlib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures import Executor
from concurrent.futures import Future
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait
from contextlib import contextmanager
from logging import CRITICAL
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from command import find_files
from command import run
from distributed import Client
from distributed import LocalCluster
from proxystore.connectors.multi import MultiConnector
from proxystore.connectors.multi import Policy
from proxystore.connectors.redis import RedisConnector
from proxystore.store import get_or_create_store
from proxystore.store import Store
from proxystore.store.config import StoreConfig
from proxystore.store.lifetimes import ContextLifetime

from proxystore_local import LocalConnector

HOST = '127.0.0.1'
COUNT = max(2, min(4, os.cpu_count() or 1))
# A MultiConnector keeps objects up to this size, in bytes, in this process.
SMALL = 32_000


def fetch(store: Store[Any], key: Any) -> Any:
    """Get an object that has to be there."""
    value = store.get(key)
    if value is None:
        raise LookupError(f'the store has no object with the key {key}')
    return value


def compress(config: StoreConfig, source: Any, dictionary: Any) -> Any:
    """The work: replace the content of a file by its compressed form."""
    store = get_or_create_store(config)
    packer = zlib.compressobj(zdict=fetch(store, dictionary))
    packed = packer.compress(fetch(store, source)) + packer.flush()
    store.evict(source)
    return store.put(packed)


def compress_files(
    files: Mapping[Path, bytes],
    connector: Any,
    workers: Executor,
) -> tuple[dict[Path, bytes], bytes, int]:
    """The driver: hand out the files and collect what the workers made.

    Args:
        files: Content of each file to compress.
        connector: Any connector that the workers reach.
        workers: Any executor. It is left running.

    Returns:
        Compressed form of each file, the dictionary to restore them with, \
        and how many objects were left in the connector.
    """
    shared = b''.join(data[:500] for data in files.values())[-SMALL // 2 :]
    with (
        Store('beyond-one-process', connector, register=True) as store,
        ContextLifetime(store) as lifetime,
    ):
        config = store.config()
        dictionary = store.put(shared, lifetime=lifetime)
        keys = [dictionary]
        jobs: dict[Future[Any], Path] = {}
        packed: dict[Path, bytes] = {}
        try:
            for file, content in files.items():
                # The lifetime evicts it if no worker does.
                source = store.put(content, lifetime=lifetime)
                job = workers.submit(compress, config, source, dictionary)
                keys.append(source)
                jobs[job] = file
            for job in as_completed(jobs):
                result = job.result()
                packed[jobs[job]] = fetch(store, result)
                store.evict(result)
                keys.append(result)
        except BaseException:
            # Workers that come to their file now do not find it, and those
            # that have it need the Store until they are done.
            lifetime.close()
            for job in wait(jobs).done:
                if job.exception() is None:
                    store.evict(job.result())
            raise
        store.evict(dictionary)
        left = sum(map(connector.exists, keys))
    return packed, shared, left


# --8<-- [start:connectors]
def make_connector(kind: str, port: int) -> Any:
    """Make the connector, which decides where the objects are."""
    if kind == 'local':
        return LocalConnector()
    redis = RedisConnector(HOST, port)
    if kind == 'redis':
        return redis
    small = Policy(max_size_bytes=SMALL, priority=1)
    return MultiConnector(
        {'small': (LocalConnector(), small), 'large': (redis, Policy())},
    )


@contextmanager
def make_workers(kind: str) -> Iterator[Executor]:
    """Make the executor, which decides where the workers are."""
    if kind == 'threads':
        with ThreadPoolExecutor(COUNT) as threads:
            yield threads
    elif kind == 'processes':
        spawn = get_context('spawn')
        with ProcessPoolExecutor(COUNT, mp_context=spawn) as processes:
            with ignored_ctrl_c():
                wait([processes.submit(os.getpid) for _ in range(COUNT)])
            yield processes
    else:
        with ignored_ctrl_c():
            cluster = LocalCluster(
                processes=True,
                n_workers=COUNT,
                threads_per_worker=1,
                dashboard_address=':0',
                silence_logs=CRITICAL,
            )
        with (
            cluster,
            Client(cluster) as client,
            client.get_executor() as executor,
        ):
            yield executor


# --8<-- [end:connectors]
@contextmanager
def ignored_ctrl_c() -> Iterator[None]:
    """Ignore Ctrl-C, as do the processes that are started meanwhile.

    A terminal sends it to them as well, but this process ends their work.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compress, print and check."""
    parser = argparse.ArgumentParser(description='Compress many files.')
    stdlib = sysconfig.get_path('stdlib')
    parser.add_argument('folder', nargs='?', type=Path, default=stdlib)
    workers_are = ('threads', 'processes', 'dask')
    parser.add_argument('--workers', choices=workers_are, default='threads')
    objects_are = ('local', 'redis', 'multi')
    parser.add_argument('--connector', choices=objects_are, default='local')
    parser.add_argument('--redis-port', type=int, default=6379)
    options = parser.parse_args(arguments)
    port = options.redis_port
    if options.workers != 'threads' and options.connector != 'redis':
        sys.exit(
            f'--connector {options.connector} keeps objects in the memory of '
            'this process, where the workers of --workers '
            f'{options.workers} cannot read them: use --connector redis, or '
            '--workers threads',
        )
    if options.connector != 'local':
        try:
            socket.create_connection((HOST, port), timeout=5).close()
        except OSError as error:
            sys.exit(
                f'no Redis server at {HOST}:{port} ({error}): start one with '
                f"'redis-server --port {port}', or give the port of yours "
                'with --redis-port',
            )
    files = {it: it.read_bytes() for it in find_files(options.folder)}
    connector = make_connector(options.connector, port)
    with make_workers(options.workers) as workers:
        start = time.perf_counter()
        packed, dictionary, left = compress_files(files, connector, workers)
        seconds = time.perf_counter() - start

    rows = {
        'files': len(files),
        'bytes': sum(map(len, files.values())),
        'compressed': sum(map(len, packed.values())),
        'workers': COUNT,
        'seconds': round(seconds, 2),
    }
    for name, number in rows.items():
        print(f'{name:<12}{number:>14,}')
    for file, content in files.items():
        unpacker = zlib.decompressobj(zdict=dictionary)
        if unpacker.decompress(packed[file]) != content:
            sys.exit(f'WRONG: {file} is not restored')
    if left > 0:
        sys.exit(f'WRONG: {left} objects were left in the connector')
    print('OK: each file is restored, and all objects are evicted')


if __name__ == '__main__':
    run(main)
