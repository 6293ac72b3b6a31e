"""Builds sdist and wheel, and checks what is in them and that they work.

Run by `tox -e package`, since it needs more than the tests do:

    python tests/check_package.py EMPTY_DIRECTORY
"""

from __future__ import annotations

import subprocess
import sys
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


def run(*command: str | Path) -> str:
    """Run a command that must succeed, and get what it prints."""
    words = [str(word) for word in command]
    return subprocess.run(
        words, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main(directory: Path) -> None:
    """Build and check in a directory."""
    python = sys.executable
    # The wheel is built from the sdist, so the sdist holds all it takes.
    print(run(python, '-m', 'build', '--outdir', directory, ROOT))
    (sdist,) = directory.glob('*.tar.gz')
    (wheel,) = directory.glob('*.whl')
    print(run(python, '-m', 'twine', 'check', '--strict', sdist, wheel))

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
        requirement.split('>')[0]
        for requirement in metadata.get_all('Requires-Dist', [])
        if 'extra ==' not in requirement
    ]
    assert required == ['readerwriterlock']

    empty = directory / 'empty'
    run(python, '-m', 'virtualenv', empty)
    scripts = empty / ('Scripts' if sys.platform == 'win32' else 'bin')
    run(scripts / 'python', '-m', 'pip', 'install', '-q', wheel)
    version, file = run(scripts / 'python', '-I', '-c', PROGRAM).split()
    assert version == metadata['Version']
    assert empty.resolve() in Path(file).resolve().parents
    print(f'{sdist.name} and {wheel.name} are as they should be')


if __name__ == '__main__':
    main(Path(sys.argv[1]).resolve())
