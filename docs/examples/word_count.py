"""Count the words of many files with threads that share one connector.

By default the files are the source files of the running Python's standard
library. Each worker is a thread with a ProxyStore `Store` of its own, and all
the Stores are on one `LocalConnector`. The work is a small MapReduce:

1. Workers put the contents of files in batches, and get proxies of them.
2. Workers resolve proxies that another worker made, which evicts the
   contents. They count the words and put one partial count for each worker,
   who is to merge the words that hash to it.
3. Workers read their partial counts from all the others in one batch, merge
   and evict them.

The result is checked against a count by one thread without a store.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from typing import NoReturn

try:
    from proxystore.proxy import Proxy
    from proxystore.store import Store
    from tqdm import tqdm

    from proxystore_local import LocalConnector
    from proxystore_local import LocalKey
except ModuleNotFoundError as error:
    sys.exit(
        f'word_count.py: error: no module named {error.name!r}: run '
        "python -m pip install '.[examples]' in a clone of proxystore-local",
    )

BATCH_SIZE = 16
PACKAGES = {'dist-packages', 'site-packages'}
WORD = re.compile(r'[^\W\d_]+')


def split(content: bytes) -> list[str]:
    """Split the content of a file into words: runs of letters."""
    return WORD.findall(content.decode('utf-8', 'replace').lower())


def put_contents(
    store: Store[LocalConnector],
    files: Sequence[Path],
) -> list[Proxy[bytes]]:
    """Stage 1: put the contents of files as one batch."""
    return store.proxy_batch([file.read_bytes() for file in files], evict=True)


def count_words(
    store: Store[LocalConnector],
    contents: Sequence[Proxy[bytes]],
    workers: int,
) -> list[Any]:
    """Stage 2: count words, and put one partial count for each worker."""
    parts: list[Counter[str]] = [Counter() for _ in range(workers)]
    for content in contents:
        for word in split(content):
            parts[hash(word) % workers][word] += 1
    return store.put_batch(parts)


def merge_counts(
    store: Store[LocalConnector],
    keys: Sequence[LocalKey],
) -> Counter[str]:
    """Stage 3: merge the partial counts that were put for one worker."""
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
    size = threads * max(1, len(files) // (BATCH_SIZE * threads))
    batches = [files[i::size] for i in range(size)]
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=2 * size + threads, unit='batch'))
        # Without a cache, and without the target in the proxies, every read
        # reaches the connector.
        direct: dict[str, Any] = {'cache_size': 0, 'populate_target': False}
        stores = [
            Store(f'word-count-{i}', connector, register=True, **direct)
            for i in range(threads)
        ]
        for store in stores:
            stack.enter_context(store)
        # Threads are joined before any Store is closed, since a proxy needs
        # the Store that made it.
        workers = [ThreadPoolExecutor(1) for _ in stores]
        for worker in workers:
            stack.callback(worker.shutdown, cancel_futures=True)

        def run(task: Callable[..., Any], *inputs: Any) -> list[Any]:
            futures = [
                workers[i % threads].submit(task, stores[i % threads], *values)
                for i, values in enumerate(zip(*inputs))
            ]
            for future in as_completed(futures):
                future.result()
                bar.update()
            return [future.result() for future in futures]

        proxies = run(put_contents, batches)
        keys = run(count_words, [*proxies[1:], proxies[0]], [threads] * size)
        counts = run(merge_counts, list(zip(*keys)))
    return sum(counts, Counter()), len(files) + threads * len(keys)


class Parser(argparse.ArgumentParser):
    """Parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit with a message."""
        self.exit(2, f'{self.prog}: error: {message}\n')


def positive(text: str) -> int:
    """Parse a whole number that is at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'not a number from 1 up: {text!r}')
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print and check; returns the exit code."""
    parser = Parser(description='Count words with threads.')
    add = parser.add_argument
    stdlib = Path(sysconfig.get_path('stdlib'))
    add('folder', nargs='?', type=Path, default=stdlib, help='of *.py files')
    cpus = max(4, os.cpu_count() or 1)
    add('--threads', type=positive, default=cpus, help='at most one a file')
    add('--top', type=positive, default=10, help='how many words to print')
    options = parser.parse_args(arguments)
    folder = options.folder
    if not folder.is_dir():
        parser.error(f'not a folder: {folder}')
    files = [
        file
        for file in sorted(folder.rglob('*.py'))
        if file.is_file()
        and not PACKAGES.intersection(file.relative_to(folder).parts)
    ]
    if not files:
        parser.error(f'no *.py files in {folder}')

    connector = LocalConnector()
    threads = min(options.threads, len(files))
    start = time.perf_counter()
    try:
        counts, objects = count_files(files, threads, connector)
        seconds = time.perf_counter() - start
        contents = [file.read_bytes() for file in files]
    except OSError as error:
        parser.error(f'cannot read {error.filename}: {error.strerror}')
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
    for table in rows.items(), counts.most_common(options.top):
        for name, number in table:
            print(f'{name:<20}{number:>14,}')
        print()
    if counts != expected:
        print('WRONG: one thread without a store counts differently')
        return 1
    if len(connector) > 0:
        print(f'WRONG: {len(connector)} objects were left in the connector')
        return 1
    print('OK: one thread without a store counts the same, all is evicted')
    return 0


if __name__ == '__main__':
    sys.exit(main())
