"""The engine: puts every peer through every case, in fresh processes."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from tqdm import tqdm

from benchmarks.peers import find_peers
from benchmarks.workloads import Effort
from benchmarks.workloads import WORKLOADS


class Figure(NamedTuple):
    """What came out for a peer in all processes."""

    median: float
    least: float
    most: float


# By 'workload/name of the number', and by the name of the peer.
Figures = dict[str, dict[str, Figure]]


def measure(effort: Effort, workloads: Sequence[str]) -> Figures:
    """Put all peers through all cases of some workloads.

    Each turn of a workload runs in a new process, so that what differs from
    process to process (the layout of memory, hashes of strings) is averaged
    out. The turns of a workload lie far apart, so that a busy moment of the
    machine does not hit them all.
    """
    found: dict[str, dict[str, list[float]]] = {}
    turns = [*itertools.product(range(effort.processes), workloads)]
    # Silent where standard error is no terminal.
    for turn, workload in tqdm(turns, disable=None, leave=False):
        for name, peer, value in _in_child(effort, workload, turn):
            peers = found.setdefault(f'{workload}/{name}', {})
            peers.setdefault(peer, []).append(value)
    return {
        place: {peer: _figure(values) for peer, values in peers.items()}
        for place, peers in found.items()
    }


def _figure(values: Sequence[float]) -> Figure:
    """Summarize in four digits; noise has more."""
    found = statistics.median(values), min(values), max(values)
    return Figure(*(float(f'{value:.4g}') for value in found))


def _in_child(effort: Effort, workload: str, turn: int) -> Any:
    """Get what `run_cases` prints in a process of its own."""
    program = 'from benchmarks.engine import run_cases; run_cases()'
    asked = json.dumps([effort, workload, turn])
    child = subprocess.run(
        [sys.executable, '-c', program, asked],
        stdout=subprocess.PIPE,
        check=True,
        # Ctrl-C is for the parent, which then kills the child.
        process_group=0 if os.name == 'posix' else None,
    )
    return json.loads(child.stdout)


def run_cases() -> None:
    """Run the cases of a turn, and print what came out of each."""
    effort, workload, turn = json.loads(sys.argv[1])
    peers = find_peers()
    found = []
    cases = WORKLOADS[workload].cases(Effort(*effort))
    for number, (names, run) in enumerate(cases):
        # Not always the same peer comes first.
        first = (turn + number) % len(peers)
        for peer in peers[first:] + peers[:first]:
            values = zip(names, run(peer))
            found += [(name, peer.name, value) for name, value in values]
    print(json.dumps(found))
