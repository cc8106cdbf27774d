"""A file of targets in the form of Prometheus' ``file_sd_configs``, read again when it changes."""

import json
import logging
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .specs import Spec, cut, parse_spec

__all__ = ["FileSd", "TargetsFile", "parse_file_sd"]

log = logging.getLogger(__name__)

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MAX_LABELS = 64
_MAX_LABEL = 128
_MAX_TARGETS = 10_000
# What is written in YAML is read by Python code, some 300 KB a second, and no probe goes on.
_MAX_YAML = 256 * 1024
_MAX_FILE_BYTES = 4 * 1024 * 1024
_YAML = (".yml", ".yaml")
_PROBLEMS_SAID = 5


class FileSd(NamedTuple):
    """What a file_sd file says.

    Attributes:
        specs: Its targets.
        refused: What of it is not taken, and why: groups, targets, labels.
    """

    specs: list[Spec]
    refused: list[str]


class TargetsFile:
    """One such file. Whatever becomes of it, the last good list stays.

    Args:
        path: Where it is; None: there is no such file, and no target in it.

    Attributes:
        specs: The targets of the last good list.
        refused: What of it is not taken: groups, targets and labels; 1 where it cannot be read.
    """

    def __init__(self, path: Path | None) -> None:
        self.specs: list[Spec] = []
        self.refused = 0
        self._path = path
        self._seen: object = None
        self._problem = ""

    def reread(self) -> None:
        """Read the file at the next look, whether or not it has changed, and say what is wrong."""
        self._seen, self._problem = None, ""

    def look(self) -> bool:
        """Read the file if it is not as it was seen last; returns whether there is a new list."""
        path = self._path
        if path is None:
            return False
        try:
            status = path.stat()
            # A mounted ConfigMap changes by a symbolic link that is swapped: another inode, and
            # perhaps the same size.
            now = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)
            if now == self._seen:
                return False
            # Before it is read: a file that is wrong is not read again until it changes, or said
            # again.
            self._seen = now
            # Opening a FIFO would wait for a writer, and the loop with it.
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
                raise ValueError(f"want a regular file of at most {_MAX_FILE_BYTES} bytes")
            self._take(parse_file_sd(path.read_text("utf-8"), is_yaml=path.suffix in _YAML))
        except OSError as error:
            self._seen = None  # it may be there at the next look, as it was
            self._refuse(error.strerror or str(error))
        except ValueError as error:
            self._refuse(str(error))
        else:
            return True
        return False

    def _take(self, read: FileSd) -> None:
        self.specs, self.refused, self._problem = read.specs, len(read.refused), ""
        fields = {"file.path": str(self._path), "twocans.targets": len(read.specs)}
        log.info("targets_file_read", extra=fields)
        if read.refused:
            said = "; ".join(read.refused[:_PROBLEMS_SAID])
            fields |= {"error.message": said, "twocans.refused": len(read.refused)}
            log.error("targets_refused", extra={**fields, "limited": True})

    def _refuse(self, problem: str) -> None:
        # The last good list stays: an editor's half-written file must not end all paths.
        self.refused = 1
        if problem != self._problem:
            self._problem = problem
            fields = {"file.path": str(self._path), "error.message": problem, "limited": True}
            log.error("targets_file_refused", extra=fields)


def parse_file_sd(text: str, *, is_yaml: bool = False) -> FileSd:
    """Read ``[{"targets": ["host:port", ...], "labels": {...}}, ...]``.

    What is wrong in it costs no more than itself: the rest is taken.

    Args:
        text: The file's.
        is_yaml: Whether it may be YAML; that needs PyYAML, unless it is JSON all the same.

    Raises:
        ValueError: It is no list of groups; the message says where.
    """
    try:
        # RecursionError: json and yaml descend by recursion, and a file may be nested deeper than
        # that.
        groups = _load(text, is_yaml)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(groups, list):
        raise ValueError("want a list of groups")
    file = FileSd([], [])
    for number, group in enumerate(groups, 1):
        for problem in _read_group(group, file.specs):
            file.refused.append(f"group {number} of {len(groups)}: {problem}")
        if len(file.specs) >= _MAX_TARGETS:
            break
    return file


def _load(text: str, is_yaml: bool) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        if not is_yaml:
            raise ValueError(f"not JSON: {error}") from None
    if len(text) > _MAX_YAML:
        raise ValueError(f"YAML of over {_MAX_YAML} characters takes too long; write it as JSON")
    try:
        import yaml
    except ImportError:
        raise ValueError(
            "YAML cannot be read without PyYAML: pip install 'twocans-client[yaml]', or write the "
            "file as JSON"
        ) from None

    class Loader(yaml.SafeLoader):
        """Takes a scalar as it is written, as Prometheus does: ``01`` is no number."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
            first: [(tag, pattern) for tag, pattern in pairs if tag.endswith((":null", ":merge"))]
            for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        return Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None


def _read_group(group: Any, specs: list[Spec]) -> Iterator[str]:
    """Add a group's targets to the list, and yield what of it is not taken."""
    if not isinstance(group, dict) or not isinstance(group.get("targets"), list):
        yield "want an object with a list of targets"
        return
    labels: dict[str, str] = {}
    yield from _read_labels(group.get("labels"), labels)
    pairs = tuple(sorted(labels.items()))
    for text in group["targets"]:
        if len(specs) >= _MAX_TARGETS:
            yield f"of all groups {_MAX_TARGETS} targets are taken, and no more"
            return
        try:
            if not isinstance(text, str):
                raise ValueError(f"{cut(ascii(text))} is no text")
            specs.append(parse_spec(text, pairs))
        except ValueError as error:
            yield f"target {error}"


def _read_labels(table: Any, labels: dict[str, str]) -> Iterator[str]:
    """Add labels to those there are, and yield which are not taken."""
    if table is None:
        return
    if not isinstance(table, dict):
        yield "labels: want an object"
        return
    for name, value in table.items():
        # Prometheus keeps labels that begin so to itself, and one without a value is none.
        if str(name).startswith("__") or value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not isinstance(name, str) or not _LABEL_NAME.fullmatch(name):
            yield f"label {cut(ascii(name))}: no label name"
        elif isinstance(value, list | dict) or len(text) > _MAX_LABEL or not text.isprintable():
            yield f"label {cut(name)}: want at most {_MAX_LABEL} printable characters"
        elif len(labels) >= _MAX_LABELS:
            yield f"label {cut(name)}: one more than {_MAX_LABELS}"
        else:
            labels[name] = text
