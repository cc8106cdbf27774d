import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_core.errors import ConfigError
from twocans_core.process import settings
from twocans_core.process.settings import ArgumentParser, add_options, option
from twocans_core.process.values import (
    boolean,
    choice,
    count,
    label,
    seconds,
    tcp_port,
    words,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Every kind of setting."""

    required: int = option(count, "Must be given.")
    port: int = option(tcp_port, "A port.", default=5000)
    wait_s: float = option(seconds, "A duration; 100 % of it.", default=0.25)
    name: str = option(label, "A name.", default="")
    fast: bool = option(boolean, "Whether.", default=False)
    targets: tuple[str, ...] = option(words, "A list.", default=(), flag="--target")
    level: str = option(choice("low", "high"), "A word.", default="low")


def parser() -> ArgumentParser:
    made = ArgumentParser("can", example="can --required 1")
    add_options(made, Config)
    return made


def load(
    *argv: str, environ: Mapping[str, str] | None = None, required: bool = True
) -> tuple[Config, dict[str, str]]:
    given = ["--required", "1"] if required else []
    return settings.load(Config, parser().parse_args([*given, *argv]), environ or {})


def problems(
    *argv: str, environ: Mapping[str, str] | None = None, required: bool = True
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*argv, environ=environ, required=required)
    return str(caught.value).splitlines()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "can.toml"


# --- where a value comes from -------------------------------------------------------------


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(file):
    file.write_text("port = 3\nwait_s = 3\nname = 'file'\n")
    environ = {"TWOCANS_PORT": "2", "TWOCANS_WAIT_S": "2"}
    config, sources = load("--config", str(file), "--port", "1", environ=environ)
    assert (config.port, config.wait_s, config.name, config.level) == (1, 2.0, "file", "low")
    assert (sources["port"], sources["wait_s"]) == ("--port", "TWOCANS_WAIT_S")
    assert (sources["name"], sources["level"]) == (f"name in {file}", "default")


def test_the_file_may_be_named_in_the_environment(file):
    file.write_text("port = 3\n")
    assert load(environ={"TWOCANS_CONFIG": str(file)})[0].port == 3


def test_a_flag_may_have_a_name_of_its_own_and_be_repeated():
    config, sources = load("--target", "a:1", "--target", "b:2")
    assert config.targets == ("a:1", "b:2")
    assert sources["targets"] == "--target"


def test_variables_of_others_are_none_of_ours():
    # Kubernetes gives every container such ones for each service.
    load(environ={"TWOCANS_SERVER_PORT": "tcp://10.0.0.1:5000", "TWOCANS_SERVER_SERVICE_HOST": "x"})


# --- what is refused ----------------------------------------------------------------------


def test_every_problem_is_listed_with_its_source_and_value():
    assert problems("--port", "70000", environ={"TWOCANS_WAIT_S": "soon"}, required=False) == [
        "--required or TWOCANS_REQUIRED is required",
        "--port '70000': a port is at most 65535",
        "TWOCANS_WAIT_S 'soon': not a duration; write 0.5, 500ms, 2s or 5m",
    ]


def test_every_unknown_key_is_listed_with_the_nearest_name(file):
    file.write_text("prot = 1\nwait = 2\nzzz = 3\nport = 70000\n")
    assert problems("--config", str(file)) == [
        f"{file}: unknown setting prot; did you mean port?",
        f"{file}: unknown setting wait; did you mean wait_s?",
        f"{file}: unknown setting zzz",
        f"port in {file} '70000': a port is at most 65535",
    ]


@pytest.mark.parametrize("value", ["{a = 1}", "1979-05-27", "07:32:00"])
def test_a_type_that_no_setting_has_is_refused(file, value):
    file.write_text(f"name = {value}\n")
    assert problems("--config", str(file)) == [
        f"{file}: name must be a text, a number, true, false or a list"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"port = ", "not TOML"),
        (b"name = '\xff'", "not TOML"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_problem(file, content, problem):
    if content is not None:
        file.write_bytes(content)
    (line,) = problems("--config", str(file))
    assert line.startswith(f"{file}: {problem}")


def test_types_of_toml_are_taken_as_they_are(file):
    file.write_text(
        "required = 7\nport = '80'\nwait_s = 1e-3\nfast = true\ntargets = ['a:1', 'b:2']\n"
    )
    config, _ = settings.load(Config, parser().parse_args(["--config", str(file)]), {})
    assert config == Config(
        required=7, port=80, wait_s=0.001, fast=True, targets=("a:1", "b:2"), name="", level="low"
    )


# --- the command line ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [["--no-such-flag"], ["--port"], ["--por", "1"], ["surplus"]], ids=" ".join
)
def test_wrong_usage_exits_with_3_and_shows_a_right_example(argv, capfd):
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(argv)
    out, err = capfd.readouterr()
    assert (caught.value.code, out) == (3, "")
    assert err.startswith("can: ")
    assert "\nexample: can --required 1\nhelp:    can --help\n" in err


def test_help_shows_each_flag_with_its_default_and_its_variable(capfd):
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(["--help"])
    out = " ".join(capfd.readouterr().out.split())
    assert caught.value.code == 0
    assert "--port PORT A port. Default: 5000. [TWOCANS_PORT]" in out
    assert "--wait-s SECONDS A duration; 100 % of it. Default: 0.25. [TWOCANS_WAIT_S]" in out
    assert "--required N Must be given. [TWOCANS_REQUIRED]" in out
    assert "--name NAME A name. Default: none. [TWOCANS_NAME]" in out
    assert "--target TEXT A list. Default: none. [TWOCANS_TARGETS]" in out
    assert "example: can --required 1 words: https://" in out


def test_exit_with_prints_each_problem_and_the_example_and_exits_with_3(capfd):
    with pytest.raises(SystemExit) as caught:
        settings.exit_with("can", ConfigError("one\ntwo"), "can --required 1")
    assert caught.value.code == 3
    assert capfd.readouterr() == ("", "can: one\ncan: two\nexample: can --required 1\n")


def test_the_rows_of_the_documentation_are_the_fields():
    rows = {row.name: row for row in settings.rows(Config)}
    assert list(rows) == [field.name for field in dataclasses.fields(Config)]
    assert rows["required"].default == "required"
    assert (rows["wait_s"].flag, rows["wait_s"].variable) == ("--wait-s", "TWOCANS_WAIT_S")
    assert (rows["wait_s"].default, rows["fast"].default) == ("0.25", "no")
    assert rows["targets"].flag == "--target"


# --- print-config -------------------------------------------------------------------------

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=128)
configs = st.builds(
    Config,
    required=st.integers(0, 2**60),
    port=st.integers(0, 65_535),
    wait_s=st.floats(0, 1e12, allow_subnormal=False),
    name=printable,
    fast=st.booleans(),
    targets=st.lists(st.text("ab:[]_\"\\'#", min_size=1), max_size=3).map(tuple),
    level=st.sampled_from(["low", "high"]),
)


@given(configs)
def test_what_is_printed_is_a_file_that_loads_as_the_same(tmp_path_factory, config):
    sources = {field.name: "default" for field in dataclasses.fields(config)}
    text = settings.render(config, sources)
    path = tmp_path_factory.getbasetemp() / "printed.toml"
    path.write_text(text)
    assert settings.load(Config, parser().parse_args(["--config", str(path)]), {})[0] == config


def test_each_printed_setting_has_its_source():
    config, sources = load("--port", "7", environ={"TWOCANS_NAME": "a"})
    lines = settings.render(config, sources).splitlines()
    said = " ".join(line.split("  # ")[1] for line in lines)
    assert said == "--required --port default TWOCANS_NAME default default default"
    assert len({line.index("#") for line in lines}) == 1


@pytest.mark.parametrize("typed", ["TWOCANS_TARGET", "TWOCANS_TARGETSS", "TWOCANS_TARGTES"])
def test_a_mistyped_variable_is_named_with_the_right_one(typed):
    assert problems(environ={typed: "a"}) == [f"{typed} is unknown; did you mean TWOCANS_TARGETS?"]


@pytest.mark.parametrize("other", ["TWOCANS_SERVER_PORT", "TWOCANS_IDLE_S", "TWOCANS_X", "PATH"])
def test_variables_of_others_are_left_alone(other):
    load(environ={other: "a"})


def test_an_empty_variable_is_not_set():
    config, sources = load(environ={"TWOCANS_PORT": "", "TWOCANS_CONFIG": ""})
    assert (config.port, sources["port"]) == (5000, "default")


@pytest.mark.parametrize("value", ['"80"', "'80'", '""'])
@pytest.mark.parametrize("name", ["TWOCANS_PORT", "TWOCANS_NAME", "TWOCANS_CONFIG"])
def test_quotation_marks_around_a_variable_are_refused_with_the_reason(name, value):
    (problem,) = problems(environ={name: value})
    assert problem.startswith(f"{name} {value!r}: write it without the quotation marks")
    assert "env file" in problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sibling:
    """Settings of another command of the same program."""

    repeat: int = option(count, "How often.", default=1)


def test_a_file_may_hold_the_settings_of_the_programs_other_commands(tmp_path):
    file = tmp_path / "can.toml"
    file.write_text("port = 1\nrepeat = 2\n")
    flags = parser().parse_args(["--required=1", f"--config={file}"])
    config, _ = settings.load(Config, flags, {}, [Sibling])
    assert config.port == 1
    file.write_text("port = 1\nrepaet = 2\n")
    with pytest.raises(ConfigError, match=r"unknown setting repaet; did you mean repeat\?"):
        settings.load(Config, flags, {}, [Sibling])
