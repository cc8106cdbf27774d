import dataclasses
import subprocess
import sys
import tomllib

import pytest

from twocans_server.__main__ import main
from twocans_server.config import ServerConfig

NAMES = [field.name for field in dataclasses.fields(ServerConfig)]
# What a bench switches off has a variable only.
FLAGLESS = ("tcp_info", "metrics")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in [*NAMES, "config"]:
        monkeypatch.delenv(f"TWOCANS_{name.upper()}", raising=False)


def printed(capfd, *flags: str) -> tuple[dict[str, object], dict[str, str]]:
    """Return every setting that ``--print-config`` shows, and where each came from."""
    assert main(["--print-config", *flags]) == 0
    out = capfd.readouterr().out
    sources = {
        line.partition(" =")[0]: line.rpartition("# ")[2] for line in out.strip().splitlines()
    }
    return tomllib.loads(out), sources


def refused(capfd, *flags: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(flags)
    assert stop.value.code == 3
    err: str = capfd.readouterr().err
    return err


def test_without_settings_every_default_is_printed(capfd):
    values, sources = printed(capfd)
    assert values == {field.name: field.default for field in dataclasses.fields(ServerConfig)}
    assert set(sources.values()) == {"default"}


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_variable_and_those_of_users_a_flag(name, capfd, monkeypatch):
    default = getattr(ServerConfig(), name)
    first, second = {str: ("error", "debug"), bool: ("no", "yes")}.get(type(default), ("7", "9"))
    flag = "--" + name.replace("_", "-")
    variable = f"TWOCANS_{name.upper()}"
    monkeypatch.setenv(variable, first)
    values, sources = printed(capfd)
    assert (shown(values[name]), sources[name]) == (first, variable)
    if name in FLAGLESS:
        assert "unrecognized argument" in refused(capfd, flag, second)
        return
    values, sources = printed(capfd, flag, second)
    assert (shown(values[name]), sources[name]) == (second, flag)


def shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def test_a_file_gives_way_to_the_environment_and_that_to_a_flag(capfd, monkeypatch, tmp_path):
    path = tmp_path / "server.toml"
    path.write_text("port = 1\nhttp_port = 2\nbacklog = 3\nidle_s = 60\n")
    monkeypatch.setenv("TWOCANS_HTTP_PORT", "20")
    monkeypatch.setenv("TWOCANS_BACKLOG", "30")
    values, _ = printed(capfd, "--config", str(path), "--backlog", "300")
    assert [values[name] for name in ("port", "http_port", "backlog", "idle_s")] == [1, 20, 300, 60]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "65536"], "--port '65536': a port is at most 65535"),
        (["--port", "x"], "not a whole number"),
        (["--max-connections", "0"], "must be 1 or more"),
        (["--max-payload-bytes", "-1"], "must not be negative"),
        (["--idle-s", "soon"], "not a duration"),
        (["--stamps", "perhaps"], "not yes or no"),
        (["--log-level", "loud"], "must be one of debug, info, warning, error"),
        (["--name", "caf\xe9"], "printable ASCII"),
        (["--max-connectionss", "1"], "--max-connectionss"),
        (["serve"], "no command 'serve'; there are run and health"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_wrong_and_the_exit_code_is_3(flags, said, capfd):
    assert said in refused(capfd, *flags)


def test_every_problem_is_named_at_once(capfd, monkeypatch):
    monkeypatch.setenv("TWOCANS_IDLE_S", "never")
    text = refused(capfd, "--port", "x", "--backlog", "0")
    assert all(name in text for name in ("--port", "--backlog", "TWOCANS_IDLE_S"))
    assert "example: twocans-server --port 5000" in text


def test_a_mistyped_key_of_a_file_is_named_with_the_right_one(capfd, tmp_path):
    path = tmp_path / "server.toml"
    path.write_text("max_conections = 5\n")
    assert "did you mean max_connections?" in refused(capfd, "--config", str(path))


@pytest.mark.parametrize("flag", ["--port", "--http-port"])
def test_a_port_that_is_taken_is_named_and_the_exit_code_is_1(flag):
    import socket

    with socket.create_server(("0.0.0.0", 0)) as taken:
        flags = {"--port": "0", "--http-port": "0", flag: str(taken.getsockname()[1])}
        command = [sys.executable, "-m", "twocans_server", *(sum(flags.items(), ()))]
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode == 1
    assert f"port {flags[flag]}" in run.stderr.replace(" or ", " port ")
    assert "choose another with --port or --http-port" in run.stderr
    assert "Traceback" not in run.stderr + run.stdout


def test_help_names_every_setting_with_a_flag_its_default_and_its_variable(capfd):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = " ".join(capfd.readouterr().out.split())
    for name in NAMES:
        assert (f"--{name.replace('_', '-')} " in text) is (name not in FLAGLESS)
        assert (f"[TWOCANS_{name.upper()}]" in text) is (name not in FLAGLESS)


def test_health_of_a_server_that_is_not_there_is_1(capfd):
    import socket

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert main(["health", "--http-port", str(port)]) == 1
    assert f"port {port}" in capfd.readouterr().out
