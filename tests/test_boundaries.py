"""The shape of the code: who imports whom, and who may touch the world."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(ROOT.glob("*/src/twocans_*/**/*.py"))

# Which room may import which; a room is a folder, or a module that stands in none. What is not
# named here may import every room of its package, and may be imported by those alone.
ROOMS = {
    "twocans_core": {
        **dict.fromkeys(("__init__", "errors", "clock", "hashing", "histogram"), ""),
        "kernel": "",
        "protocol": "errors kernel",
        "net": "clock kernel",
        "host": "clock histogram kernel",
        "process": "__init__ errors histogram host net",
    },
    "twocans_server": {
        **dict.fromkeys(("__init__", "limits", "deadlines", "turns"), ""),
        **dict.fromkeys(("config", "tally", "admission", "memory"), "limits"),
        **dict.fromkeys(("acceptor", "history", "metrics"), "tally"),
        "connections": "limits tally",
        "roster": "connections deadlines memory tally turns",
        "service": "acceptor admission config connections history limits metrics roster tally",
        "run": "config connections limits service",
        "cli": "config run",
        "__main__": "cli",
    },
    "twocans_client": {
        "evidence": "",
        "verdicts": "evidence",
        "discovery": "evidence",
        "probes": "evidence",
        "paths": "evidence discovery verdicts",
        "report": "evidence verdicts",
        "export": "evidence discovery probes paths report verdicts",
        "service": "evidence discovery probes paths report export config verdicts",
        "diagnosis": "evidence discovery probes paths report config verdicts service",
    },
}
PACKAGES_OF = {
    "twocans_core": {"twocans_core"},
    "twocans_server": {"twocans_server", "twocans_core"},
    "twocans_client": {"twocans_client", "twocans_core"},
}

# Bytes and values in, bytes and values out: a test of one of these is a pure function call.
# fmt: off
NO_IO = (
    "core/kernel", "core/protocol", "core/errors", "core/hashing", "core/histogram",
    "client/evidence", "client/verdicts", "client/paths", "client/report",
    "client/probes/schedule", "client/probes/endings",
    "client/discovery/specs", "client/discovery/neighbours", "client/discovery/slices",
    "client/export/path_series",
    "server/limits", "server/deadlines", "server/config", "server/tally", "server/turns",
    "server/admission", "server/connections/endings", "server/connections/outbox",
    "server/connections/conversation", "server/connections/context",
    "server/connections/witness",
)
# fmt: on
IO_MODULES = {"asyncio", "socket", "time", "os", "logging", "select", "threading", "subprocess"}

MAY_USE = {
    "socket": {
        "core/src/twocans_core/net/channel.py",
        "core/src/twocans_core/net/half_open.py",
        "core/src/twocans_core/net/listener.py",
        "core/src/twocans_core/net/sockets.py",
    },
    "select": {
        "core/src/twocans_core/process/output.py",
        "core/src/twocans_core/net/poller.py",
        "core/src/twocans_core/net/streams.py",  # for constants
        "server/src/twocans_server/connections/connection.py",  # for constants
        "server/src/twocans_server/service.py",  # for constants
    },
}
BANNED_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules_of(tree: ast.AST) -> set[str]:
    """The top-level names of every module that is imported from outside its own package."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def forbidden_calls(tree: ast.AST) -> list[str]:
    """Calls that run what they are given, as code or in a shell."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in BANNED_CALLS or called in ("yaml.load", "os.system", "os.popen"):
            found.append(called)
        for keyword in node.keywords:
            is_false = isinstance(keyword.value, ast.Constant) and not keyword.value.value
            if keyword.arg == "shell" and not is_false:
                found.append(f"{called}(shell=…)")
    return found


@pytest.fixture(params=SOURCES, ids=name_of)
def source(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def tree(source: Path) -> ast.Module:
    return ast.parse(source.read_text())


def room_of(module: tuple[str, ...]) -> str:
    """The room of what is imported, or of a source: its place after the package's name."""
    return module[1] if len(module) > 1 else "__init__"


def imports_of(source: Path) -> set[tuple[str, ...]]:
    """What a source imports of ours, as the parts of the names of modules and packages."""
    found = set()
    folder = source.relative_to(ROOT).parts[2:-1]
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) + 1 - node.level] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            if len(module) == 1:  # from twocans_core import clock: a module, or a name of its own
                names = {(*module, alias.name) for alias in node.names}
                found |= {name if is_room(name) else module for name in names}
            else:
                found.add(module)
    return {module for module in found if module[0] in ROOMS}


def is_room(name: tuple[str, ...]) -> bool:
    package, room = name
    src = ROOT / package.removeprefix("twocans_") / "src" / package
    return (src / room).is_dir() or (src / f"{room}.py").is_file()


def own_name(source: Path) -> tuple[str, ...]:
    parts = source.relative_to(ROOT).with_suffix("").parts[2:]
    return parts if parts[-1] != "__init__" or len(parts) == 2 else parts[:-1]


def sources_of(name: str) -> list[Path]:
    can, _, room = name.partition("/")
    place = ROOT / can / "src" / f"twocans_{can}" / room
    return sorted(place.glob("*.py")) or [place.with_suffix(".py")]


def test_every_package_has_sources():
    assert {path.relative_to(ROOT).parts[2] for path in SOURCES} == ROOMS.keys()


def test_every_folder_is_a_room_and_says_in_one_sentence_what_it_is_for():
    folders = {path.parent for path in SOURCES if len(path.relative_to(ROOT).parts) > 4}
    named = {(package, room) for package, rooms in ROOMS.items() for room in rooms}
    for folder in folders:
        assert folder.relative_to(ROOT).parts[2:] in named
        (says,) = ast.parse((folder / "__init__.py").read_text()).body
        assert ast.unparse(says).count("\n") == 0


def test_imports_go_one_way(source):
    package, room = own_name(source)[0], room_of(own_name(source))
    imported = imports_of(source)
    assert {module[0] for module in imported} <= PACKAGES_OF[package]
    rooms = {room_of(module) for module in imported if module[0] == package} - {room}
    if room in ROOMS[package]:
        assert rooms <= set(ROOMS[package][room].split())


@pytest.mark.parametrize("package", ROOMS)
def test_no_two_rooms_import_each_other(package):
    """Also of those that the table does not name."""
    imported: dict[str, set[str]] = {}
    for source in SOURCES:
        if own_name(source)[0] == package:
            room = room_of(own_name(source))
            rooms = {room_of(module) for module in imports_of(source) if module[0] == package}
            imported.setdefault(room, set()).update(rooms - {room})
    graphlib.TopologicalSorter(imported).prepare()  # raises CycleError
    for room, allowed in ROOMS[package].items():
        assert imported[room] == set(allowed.split()), "the table allows what nobody needs"


def test_no_import_leaves_its_package_by_dots(source, tree):
    depth = len(source.relative_to(ROOT).parts) - 3
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert max(levels, default=0) <= depth


@pytest.mark.parametrize("name", NO_IO)
def test_rooms_without_io_do_none(name):
    for page in sources_of(name):
        tree = ast.parse(page.read_text())
        assert not modules_of(tree) & IO_MODULES
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & {"open", "print", "input"}


@pytest.mark.parametrize("module", MAY_USE)
def test_only_the_listed_modules_import(module):
    users = {name_of(path) for path in SOURCES if module in modules_of(ast.parse(path.read_text()))}
    assert users <= MAY_USE[module]


def test_nothing_executes_what_it_is_given(source, tree):
    assert not modules_of(tree) & BANNED_MODULES
    assert forbidden_calls(tree) == []


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=flag)",
    ],
)
def test_the_search_for_forbidden_calls_finds_them(code):
    assert forbidden_calls(ast.parse(code))


def test_importing_everything_reads_no_variable_and_configures_nothing():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts[2:]).removesuffix(".__init__")
        for path in SOURCES
        if path.name != "__main__.py"
    ]
    # What the libraries do is theirs, so they are imported first.
    program = f"""
import importlib, logging, os, signal, sys, threading
import asyncio, argparse, http.server, prometheus_client, prometheus_client.exposition
import pythonjsonlogger.json
try:
    import rich.console, rich.live, rich.table
except ImportError:
    pass
read = []
class Watched(type(os.environ)):
    def __getitem__(self, key):
        read.append(key)
        return super().__getitem__(key)
    def __contains__(self, key):
        read.append(key)
        return super().__contains__(key)
    def __iter__(self):
        read.append("all")
        return super().__iter__()
os.environ.__class__ = Watched
hooks = sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGTERM)
for name in {modules!r}:
    importlib.import_module(name)
assert read == [], read
assert logging.root.handlers == [], logging.root.handlers
assert hooks == (sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGTERM))
assert threading.active_count() == 1
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
