"""What the series of each path call its server. No I/O."""

import itertools

from .path import Path

__all__ = ["Labels"]


class Labels:
    """Names for servers, such that no two paths of one target and family share one."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str, str], Path] = {}
        self._names: dict[Path, tuple[str, str, str]] = {}

    def give(self, path: Path) -> None:
        """Name a path by its server, with a number where another has that name.

        In a mesh a server is called as its node, and a watch knows that before it answers. Of
        one that nobody has heard of yet we have the configured words: its host. Never the
        address, which somebody else chooses.
        """
        self.take(path)
        of = (path.target.spec.text, path.target.family)
        name = path.server.name or path.server.node or path.target.spec.host
        names = itertools.chain([name], (f"{name}#{number}" for number in itertools.count(2)))
        path.label = next(name for name in names if (*of, name) not in self._taken)
        self._names[path] = (*of, path.label)
        self._taken[self._names[path]] = path

    def take(self, path: Path) -> None:
        """Free a path's name, if it has one."""
        # As it was given: the target may have another address since, of the other family.
        name = self._names.pop(path, None)
        if name is not None:
            del self._taken[name]
