"""Builds sdist and wheel, and checks what is in them and that they work.

Run by `tox -e package`, since it needs more than the tests do:

    python tests/check_package.py EMPTY_DIRECTORY
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / 'src' / 'proxystore_local'
PROGRAM = """
from importlib.metadata import version
from proxystore_local import __version__
from proxystore_local import LocalConnector
assert __version__ == version('proxystore-local')
connector = LocalConnector()
assert connector.get(connector.put(b'value')) == b'value'
"""


def run(*command: str | Path) -> None:
    """Run a command that must succeed."""
    subprocess.run([str(word) for word in command], check=True)


def main(directory: Path) -> None:
    """Build and check in a directory."""
    python = sys.executable
    # The wheel is built from the sdist, so the sdist holds all it takes.
    run(python, '-m', 'build', '--outdir', directory, ROOT)
    (sdist,) = directory.glob('*.tar.gz')
    (wheel,) = directory.glob('*.whl')
    run(python, '-m', 'twine', 'check', '--strict', sdist, wheel)

    with zipfile.ZipFile(wheel) as archive:
        held = archive.namelist()
    code = {name for name in held if '.dist-info/' not in name}
    expected = {
        f'proxystore_local/{path.name}'
        for path in PACKAGE.iterdir()
        if path.is_file()
    }
    assert code == expected, f'the wheel holds {code ^ expected} or lacks it'
    assert any(name.endswith('/licenses/LICENSE') for name in held), held

    # With no more than it requires, and so without ProxyStore.
    alone = directory / 'alone'
    run(python, '-m', 'virtualenv', alone)
    scripts = alone / ('Scripts' if sys.platform == 'win32' else 'bin')
    run(scripts / 'python', '-m', 'pip', 'install', '-q', wheel)
    run(scripts / 'python', '-I', '-c', PROGRAM)
    print(f'{sdist.name} and {wheel.name} are as they should be')


if __name__ == '__main__':
    main(Path(sys.argv[1]).resolve())
