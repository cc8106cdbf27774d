"""Every log call of the sources, with the events and the fields that it can log."""

import ast
import dataclasses
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from twocans_core.process import jsonlog

SOURCES = [
    page
    for can in ("core", "server", "client")
    for page in sorted((Path(__file__).parent.parent / can / "src").glob("**/*.py"))
]
# The place of the event among the arguments.
_METHODS = {
    **dict.fromkeys(("debug", "info", "warning", "error", "critical", "exception"), 0),
    "log": 1,
    "makeRecord": 4,
}
# What our log calls hand to the rate limit, and no line has.
_MARKS = {"limited"}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass
class LogCall:
    """One event of one log call."""

    where: str
    event: str
    fields: set[str]


def log_calls() -> list[LogCall]:
    """Return every call of a method of ``log``. One that cannot be read is an error."""
    trees = {page: ast.parse(page.read_text()) for page in SOURCES}
    functions = {
        node.name: node
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, _Function)
    }
    found = []
    for page, tree in trees.items():
        for scope, call in _calls(tree, tree):
            reader = _Reader(tree, scope, functions)
            assert isinstance(call.func, ast.Attribute)
            event_of = call.args[_METHODS[call.func.attr]]
            extra = [item.value for item in call.keywords if item.arg == "extra"]
            fields = set().union(*map(reader.keys, extra)) - _MARKS
            where = f"{page.name}:{call.lineno}"
            found += [LogCall(where, event, fields) for event in reader.texts(event_of)]
    return found


def all_fields() -> set[str]:
    """Return every field that a line may have: of the log calls, and of the formatter itself."""
    return set().union(*(call.fields for call in log_calls())) | own_fields()


def own_fields() -> set[str]:
    """Return the fields that lines have of themselves, as a pipe really writes them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    read_fd, write_fd = os.pipe()
    try:
        pipe = jsonlog.configure("info", service="can", version="1", fd=write_fd)
        limit = root.handlers[0].filters[0]
        assert isinstance(limit, jsonlog.RateLimit)
        limit._period_s = 0.0
        limit._kinds["bug", None] = (0.0, 1)  # one was held back
        try:
            raise RuntimeError
        except RuntimeError:
            logging.getLogger("twocans_core").exception("bug", extra={"limited": True})
        logging.getLogger("asyncio").warning("slow")
        pipe.close()
    finally:
        os.close(write_fd)
        root.handlers[:], root.level = handlers, level
        logging.captureWarnings(False)
    with os.fdopen(read_fd) as reader:
        return {key for line in reader for key in json.loads(line)}


def _calls(node: ast.AST, scope: ast.AST) -> Iterator[tuple[ast.AST, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.Call)
            and isinstance(child.func, ast.Attribute)
            and child.func.attr in _METHODS
            and isinstance(child.func.value, ast.Name)
            and child.func.value.id in ("log", "logger", "logging", "_log")
        ):
            yield scope, child
        yield from _calls(child, child if isinstance(child, _Function) else scope)


class _Reader:
    """Reads what an expression in a function may be, as far as our log calls need it."""

    def __init__(self, tree: ast.AST, scope: ast.AST, functions: dict[str, _Function]) -> None:
        self._tree = tree
        self._scope = scope
        self._functions = functions

    def keys(self, node: ast.expr) -> set[str]:
        """Return the keys of a dict."""
        match node:
            case ast.Dict():
                pairs = zip(node.keys, node.values, strict=True)
                return set().union(
                    *(self.keys(value) if key is None else self.texts(key) for key, value in pairs)
                )
            case ast.Name():
                return set().union(*map(self.keys, self._values(node.id)), self._added(node.id))
            case ast.DictComp(
                generators=[
                    ast.comprehension(iter=ast.Call(func=ast.Attribute(value=whole, attr="items")))
                ]
            ):
                return self.keys(whole)
            case ast.Call():
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr  # type: ignore[attr-defined]
                called = self._functions[name]
                inside = _Reader(self._tree, called, self._functions)
                returns = [at.value for at in ast.walk(called) if isinstance(at, ast.Return)]
                return set().union(*(inside.keys(value) for value in returns if value))
        raise AssertionError(f"cannot see the keys of {ast.unparse(node)}")

    def texts(self, node: ast.expr) -> set[str]:
        """Return what a text may be."""
        match node:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.IfExp():
                return self.texts(node.body) | self.texts(node.orelse)
            case ast.Name():
                return set().union(*map(self.texts, self._values(node.id)))
            case ast.Subscript(value=ast.Name(id=name)):
                (table,) = self._values(name)
                assert isinstance(table, ast.Dict)
                return set().union(*map(self.texts, table.values))
        raise AssertionError(f"cannot see the text of {ast.unparse(node)}")

    def _values(self, name: str) -> list[ast.expr]:
        for scope in (self._scope, self._tree):
            found = [
                node.value
                for node in ast.walk(scope)
                if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value
                for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
                if isinstance(target, ast.Name) and target.id == name
            ]
            if found:
                return found
        raise AssertionError(f"cannot see what {name} is")

    def _added(self, name: str) -> set[str]:
        """Return the keys that are set one by one."""
        return set().union(
            *(
                self.texts(target.slice)
                for node in ast.walk(self._scope)
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Subscript)
                and isinstance(target.value, ast.Name)
                and target.value.id == name
            )
        )
