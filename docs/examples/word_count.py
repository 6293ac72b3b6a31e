"""Count the words of many files with threads that share one connector.

By default the files are the source files of the running Python's standard
library. The workers are the threads of a pool. Each has a ProxyStore `Store`
of its own, and all the Stores are on one `LocalConnector`. The work is a small
MapReduce, a task for each line:

1. Put the contents of a batch of files, and get proxies of them.
2. Resolve such proxies, which evicts the contents. Count the words, divide
   them by their hash into as many parts as there are workers, and put the
   partial counts.
3. Get the partial counts of one part, from all batches at one moment. Merge
   and evict them.

Whichever worker takes a task reads what others have put. The result is checked
against a count by one thread without a store.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any

from command import find_files
from command import run
from proxystore.proxy import Proxy
from proxystore.store import Store

from proxystore_local import LocalConnector

BATCH_SIZE = 16
WORD = re.compile(r'[^\W\d_]+')

worker = threading.local()  # Each thread has a store of its own in it.


def split(content: bytes) -> list[str]:
    """Split the content of a file into words: runs of letters."""
    return WORD.findall(content.decode('utf-8', 'replace').lower())


def put_contents(files: Sequence[Path]) -> Any:
    """Stage 1: put the contents of files as one batch."""
    contents = [file.read_bytes() for file in files]
    return worker.store.proxy_batch(contents, evict=True)


def count_words(contents: Sequence[Proxy[bytes]], parts: int) -> Any:
    """Stage 2: count words, and put the counts of each part of the words."""
    counts: list[Counter[str]] = [Counter() for _ in range(parts)]
    for content in contents:
        for word in split(content):
            counts[hash(word) % parts][word] += 1
    return worker.store.put_batch(counts)


def merge_counts(keys: Sequence[Any]) -> Counter[str]:
    """Stage 3: merge the counts of one part of the words."""
    store = worker.store
    merged: Counter[str] = Counter()
    for key, data in zip(keys, store.connector.get_batch(keys)):
        if data is None:
            raise LookupError(f'a partial count is missing: {key}')
        merged.update(store.deserializer(data))
        store.evict(key)
    return merged


def count_files(
    files: Sequence[Path],
    threads: int,
    connector: LocalConnector,
) -> tuple[Counter[str], int]:
    """Count words; also returns how many objects were put on the way."""
    size = max(threads, len(files) // BATCH_SIZE)
    batches = [files[i::size] for i in range(size)]

    # A proxy finds the Store that made it by its name, so the Stores are
    # registered, and are closed when all threads have ended.
    with ExitStack() as stores:

        def start() -> None:
            store = Store(
                f'word-count-{threading.get_ident()}',
                connector,
                register=True,
                # Every read is to reach the connector: no cache, and no
                # object in the proxy itself.
                cache_size=0,
                populate_target=False,
            )
            worker.store = stores.enter_context(store)

        with ThreadPoolExecutor(threads, initializer=start) as pool:
            proxies = pool.map(put_contents, batches)
            keys = pool.map(count_words, proxies, repeat(threads))
            # From the parts of each batch to the batches of each part.
            counts = pool.map(merge_counts, zip(*keys))
    return sum(counts, Counter()), len(files) + size * threads


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, print and check."""
    parser = argparse.ArgumentParser(description='Count words with threads.')
    stdlib = sysconfig.get_path('stdlib')
    parser.add_argument('folder', nargs='?', type=Path, default=stdlib)
    cores = os.cpu_count() or 1
    parser.add_argument('--threads', type=int, default=max(4, cores))
    options = parser.parse_args(arguments)
    files = find_files(options.folder)
    threads = min(options.threads, len(files))
    connector = LocalConnector()
    start = time.perf_counter()
    counts, objects = count_files(files, threads, connector)
    seconds = time.perf_counter() - start
    contents = [file.read_bytes() for file in files]
    expected = Counter(word for content in contents for word in split(content))

    rows = {
        'files': len(files),
        'bytes': sum(map(len, contents)),
        'words': counts.total(),
        'distinct words': len(counts),
        'objects put': objects,
        'threads': threads,
        'seconds': round(seconds, 2),
    }
    for table in rows.items(), counts.most_common(10):
        for name, number in table:
            print(f'{name:<20}{number:>14,}')
        print()
    if counts != expected:
        sys.exit('WRONG: one thread without a store counts differently')
    if len(connector) > 0:
        sys.exit(f'WRONG: {len(connector)} objects were left in the connector')
    print('OK: one thread without a store counts the same, all is evicted')


if __name__ == '__main__':
    run(main)
