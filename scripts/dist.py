"""Make what a machine without our images can be given: wheels, and each program as one file.

    dist/twocans_{core,server,client}-VERSION-py3-none-any.whl   for pip
    dist/twocans-{server,client}.pyz                             for python3, 3.11 or later

Run by ``make dist``, in the environment that has what builds the wheels. A .pyz holds the locked
packages and nothing of this machine, so the same sources give the same bytes.
"""

import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTALL = [sys.executable, "-I", str(ROOT / "scripts/install.py")]
ROLES = ("server", "client")
# What pip notes of an installation: where it came from, which is a path of this machine.
_NOTED = {"direct_url.json", "INSTALLER", "RECORD", "REQUESTED"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a ZIP file knows
_MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("twocans: Python 3.11 or later is needed, and this is " + sys.version.split()[0])

from twocans_{role}.__main__ import main

sys.exit(main())
"""


def main(arguments: list[str]) -> int:
    """Make everything anew, in ``dist/`` or the folder that is named; returns the exit code."""
    dist = Path(*arguments[:1]).resolve() if arguments else ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    sources = [str(ROOT / name) for name in ("core", *ROLES)]
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", dist, *sources)
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder) / "shared"
        pip(
            "install",
            "--require-hashes",
            "--requirement",
            ROOT / "requirements/run.txt",
            "--no-compile",
            "--target",
            shared,
        )
        for role in ROLES:
            tree = Path(folder) / role
            shutil.copytree(shared, tree)
            for name in ("core", role):
                with zipfile.ZipFile(next(dist.glob(f"twocans_{name}-*.whl"))) as wheel:
                    wheel.extractall(tree)
            (tree / "__main__.py").write_text(_MAIN.format(role=role))
            write_pyz(tree, dist / f"twocans-{role}.pyz")
    for file in sorted(dist.iterdir()):
        print(f"{dist.name}/{file.name}  {file.stat().st_size // 1024} KiB")
    return 0


def pip(*arguments: object) -> None:
    """Run pip without the user's surroundings. Exits if it fails; it has said why."""
    done = subprocess.run([*INSTALL, *map(str, arguments)], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def write_pyz(tree: Path, file: Path) -> None:
    """Write a folder as one file that Python runs.

    As the standard library's zipapp does, but the same for every machine and moment.
    """
    names = sorted(path.relative_to(tree) for path in tree.rglob("*") if path.is_file())
    with file.open("wb") as out:
        out.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                if name.parts[0] == "bin" or name.name in _NOTED or name.suffix == ".pyc":
                    continue
                entry = zipfile.ZipInfo(name.as_posix(), _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, (tree / name).read_bytes())
    file.chmod(0o755)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
