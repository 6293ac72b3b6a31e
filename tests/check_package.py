"""Builds sdist and wheel, and checks what is in them and that they work.

Run by `tox -e package`, since it needs more than the tests do:

    python tests/check_package.py DIRECTORY
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / 'src' / 'proxystore_local'
PROGRAM = """
import proxystore_local
connector = proxystore_local.LocalConnector()
assert connector.get(connector.put(b'value')) == b'value'
print(proxystore_local.__version__, proxystore_local.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, and show what it prints."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    print(result.stdout, end='', flush=True)
    return result.stdout


def main(directory: Path) -> None:
    """Build and check in a directory.

    Args:
        directory: Where to build and install. What it holds of an earlier run
            is left alone.
    """
    python = sys.executable
    dist = directory / 'dist'
    for old in dist.glob('*'):
        old.unlink()
    # The wheel is built from the sdist, so the sdist holds all it takes.
    run(python, '-m', 'build', '--outdir', dist, ROOT, cwd=directory)
    (sdist,) = dist.glob('*.tar.gz')
    (wheel,) = dist.glob('*.whl')
    run(python, '-m', 'twine', 'check', '--strict', sdist, wheel, cwd=dist)

    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        info = next(n for n in held if n.endswith('.dist-info/METADATA'))
        metadata = HeaderParser().parsestr(archive.read(info).decode())
    code = {name for name in held if '.dist-info/' not in name}
    expected = {
        f'proxystore_local/{path.name}'
        for path in PACKAGE.iterdir()
        if path.is_file()
    }
    assert code == expected, f'the wheel holds {code ^ expected} or lacks it'
    assert any(name.endswith('/licenses/LICENSE') for name in held), held
    required = [
        requirement
        for requirement in metadata.get_all('Requires-Dist', [])
        if 'extra ==' not in requirement
    ]
    assert [r.split('>')[0] for r in required] == ['readerwriterlock']
    assert metadata['Requires-Python'] == '>=3.11'

    with tarfile.open(sdist) as archive:
        tops = {
            Path(name).parts[1] for name in archive.getnames() if '/' in name
        }
    needed = {'pyproject.toml', 'README.md', 'LICENSE', 'src', 'tests'}
    assert needed <= tops, f'the sdist lacks {needed - tops}'

    empty = directory / 'empty'
    run(python, '-m', 'virtualenv', '--clear', empty, cwd=directory)
    scripts = empty / ('Scripts' if sys.platform == 'win32' else 'bin')
    run(scripts / 'python', '-m', 'pip', 'install', '-q', wheel, cwd=empty)
    imported = run(scripts / 'python', '-I', '-c', PROGRAM, cwd=empty)
    version, file = imported.split(maxsplit=1)
    assert version == metadata['Version']
    assert str(empty.resolve()) in str(Path(file.strip()).resolve())
    print(f'{sdist.name} and {wheel.name} are as they should be')


if __name__ == '__main__':
    main(Path(sys.argv[1]).resolve())
