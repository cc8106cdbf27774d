"""Run pip so that what it installs depends on this folder and not on the user's surroundings.

Taken over from what the user has set for pip, in the environment or in its configuration files, is
how packages are reached: indexes, certificates, proxies, folders of wheels. Nothing else is: a
``user = true`` or a ``PIP_TARGET`` would put the packages where nobody looks for them.

    python scripts/install.py install --require-hashes --requirement requirements/run.txt

Run by the Makefile, with the Python whose environment is to be installed into. ``install`` resolves
nothing: a locked file names every package that is needed, and a newer release of one must not
matter. What it names is checked afterwards.
"""

import ast
import os
import subprocess
import sys

# By pip's own names, without the command that they were configured for.
# fmt: off
REACH = {
    "cache-dir", "cert", "client-cert", "default-timeout", "extra-index-url", "find-links",
    "index-url", "keyring-provider", "no-index", "proxy", "resume-retries", "retries",
    "timeout", "trusted-host", "use-deprecated", "use-feature",
}
# fmt: on
# Of a configuration file and of the environment, in the order in which pip lets them count.
SECTIONS = ("global", "install", ":env:")
# -I: no PYTHONPATH, no packages of the user's, nothing of the folder we stand in.
PIP = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]


def main(arguments: list[str]) -> int:
    """Run pip; returns its exit code, or that of ``pip check`` after an ``install``."""
    if arguments[:1] == ["install"]:
        arguments = ["--quiet", "install", "--no-deps", *arguments[1:]]
    environment = surroundings()
    status = subprocess.run([*PIP, *arguments], env=environment, check=False).returncode
    if status == 0 and "install" in arguments:
        checked = subprocess.run(
            [*PIP, "check"], env=environment, check=False, capture_output=True, text=True
        )
        if checked.returncode:
            sys.stderr.write(f"twocans: what is locked does not fit together:\n{checked.stdout}")
        status = checked.returncode
    return status


def surroundings() -> dict[str, str]:
    """Return our environment with, of everything that pip would read, only ``REACH``."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PIP_")}
    kept["PIP_CONFIG_FILE"] = os.devnull  # which is how pip is told to read none
    for name, text in configured():
        kept["PIP_" + name.upper().replace("-", "_")] = text
    return kept


def configured() -> list[tuple[str, str]]:
    """Return what is set of ``REACH``, by pip's names; what counts more comes later.

    Exits if pip cannot read its configuration; it has said so.
    """
    # `pip config` has these three as options of its own, and would read one file only.
    environment = os.environ | {"PIP_USER": "0", "PIP_GLOBAL": "0", "PIP_SITE": "0"}
    environment["PIP_QUIET"] = "0"
    listed = subprocess.run(
        [*PIP, "config", "list"], env=environment, check=False, stdout=subprocess.PIPE, text=True
    )
    if listed.returncode:
        sys.exit(listed.returncode)
    found = []
    for line in listed.stdout.splitlines():
        where, equals, text = line.partition("=")
        section, _, name = where.rpartition(".")
        if equals and section in SECTIONS and name in REACH and ast.literal_eval(text):
            found.append((section, name, str(ast.literal_eval(text))))
    found.sort(key=lambda item: SECTIONS.index(item[0]))
    return [(name, text) for _, name, text in found]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
