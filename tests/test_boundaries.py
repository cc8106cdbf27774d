"""The shape of the code: who imports whom, and who may touch the world."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(ROOT.glob("*/src/twocans_*/**/*.py"))

MAY_IMPORT = {
    "twocans_core": set[str](),
    "twocans_server": {"twocans_core"},
    "twocans_client": {"twocans_core"},
}

# Bytes and values in, bytes and values out: a test of one of these is a pure function call.
NO_IO = (
    *(f"core/src/twocans_core/{name}.py" for name in ("errors", "frames", "messages", "session")),
    *(f"core/src/twocans_core/{name}.py" for name in ("tcpinfo", "stamps", "histogram")),
    *(f"server/src/twocans_server/{name}.py" for name in ("limits", "deadlines", "config")),
    *(
        f"client/src/twocans_client/{name}.py"
        for name in (
            *("schedule", "results", "path", "blame", "specs", "split", "tally"),
            *("report", "report_text", "report_json", "waterfall", "shown", "next_steps"),
            *("labels", "neighbours", "slices", "conservation", "overflows", "proxy"),
            *("direction", "renames"),
        )
    ),
)
IO_MODULES = {"asyncio", "socket", "time", "os", "logging", "select", "threading", "subprocess"}

MAY_USE = {
    "socket": {"core/src/twocans_core/sockets.py"},
    "select": {
        "core/src/twocans_core/output.py",
        "core/src/twocans_core/poller.py",
        "core/src/twocans_core/streams.py",  # for constants
        "server/src/twocans_server/connection.py",  # for constants
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


def test_every_package_has_sources():
    assert {path.relative_to(ROOT).parts[2] for path in SOURCES} == MAY_IMPORT.keys()


def test_imports_point_one_way(source, tree):
    package = source.relative_to(ROOT).parts[2]
    ours = modules_of(tree) & MAY_IMPORT.keys()
    assert ours - {package} <= MAY_IMPORT[package]


def test_no_import_leaves_its_package_by_dots(source, tree):
    depth = len(source.relative_to(ROOT).parts) - 3
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert max(levels, default=0) <= depth


@pytest.mark.parametrize("name", NO_IO)
def test_modules_marked_no_io_do_none(name):
    tree = ast.parse((ROOT / name).read_text())
    assert not modules_of(tree) & IO_MODULES


@pytest.mark.parametrize("name", NO_IO)
def test_modules_marked_no_io_open_no_file(name):
    tree = ast.parse((ROOT / name).read_text())
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
