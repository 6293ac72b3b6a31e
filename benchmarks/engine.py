"""The engine: puts every peer through workloads, in fresh processes."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from benchmarks.peers import is_missing
from benchmarks.peers import PEERS
from benchmarks.workloads import Effort
from benchmarks.workloads import WORKLOADS

# By 'workload/name of the number', and by the name of the peer: the median of
# all processes, the least and the most.
Figures = Mapping[str, Mapping[str, Sequence[float]]]


def measure(effort: Effort, workloads: Sequence[str]) -> Figures:
    """Put all peers through some workloads.

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


def _figure(values: Sequence[float]) -> list[float]:
    """Summarize in four digits; noise has more."""
    found = statistics.median(values), min(values), max(values)
    return [float(f'{value:.4g}') for value in found]


def _in_child(effort: Effort, workload: str, turn: int) -> Any:
    """Get what `measure_peers` prints in a process of its own."""
    program = 'from benchmarks.engine import measure_peers; measure_peers()'
    asked = json.dumps([effort, workload, turn])
    child = subprocess.run(
        [sys.executable, '-c', program, asked],
        stdout=subprocess.PIPE,
        check=True,
        # Ctrl-C is for the parent, which then kills the child.
        process_group=0 if os.name == 'posix' else None,
    )
    return json.loads(child.stdout)


def measure_peers() -> None:
    """Put the peers through a workload, and print what came out of each."""
    effort, workload, turn = json.loads(sys.argv[1])
    peers = [name for name in PEERS if not is_missing(PEERS[name].needs)]
    # Not always the same peer comes first.
    first = turn % len(peers)
    peers = peers[first:] + peers[:first]
    runs = [
        WORKLOADS[workload].measure(Effort(*effort), PEERS[peer].make)
        for peer in peers
    ]
    # Peers take turns: each measures its first number, then its second.
    found = [
        (name, peer, value)
        for numbers in zip(*runs)
        for peer, (name, value) in zip(peers, numbers)
    ]
    print(json.dumps(found))
