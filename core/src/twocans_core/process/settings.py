"""Settings from flags, environment, a TOML file and defaults, in that order.

A config is a frozen dataclass whose fields are declared with ``option``. Everything else is
made from that one declaration, and so in this one module: the flag, the variable, the line in
--help, the row in docs/configuration.md and the message when a value is refused.

    field          interval_s
    flag           --interval-s
    variable       TWOCANS_INTERVAL_S
    key in a file  interval_s
"""

import argparse
import dataclasses
import difflib
import json
import re
import sys
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from twocans_core.errors import ConfigError

from .output import complain, say
from .values import count, label, place, positive, seconds, size, tcp_port, timespan, words

__all__ = [
    "ArgumentParser",
    "add_options",
    "load",
    "option",
    "render",
]

USAGE_EXIT = 3
"""What monitoring plugins call UNKNOWN. argparse's own 2 would be read as CRITICAL."""

ENV_PREFIX: Final = "TWOCANS_"
_REQUIRED: Final = object()
# One letter off, more or less.
_MISTYPED = 0.92
# An address and no path: an image and a .pyz hold no docs/.
_WORDS = "https://github.com/twocans/twocans/blob/main/docs/measuring.md#words"

ConfigT = TypeVar("ConfigT")


def option(
    parse: Callable[[str], Any],
    help_line: str,
    *,
    default: Any = _REQUIRED,
    hidden: bool = False,
    **metadata: str,
) -> Any:
    """Declare a field of a config dataclass.

    Args:
        parse: Turn the text into the field's type. Raise ValueError to refuse; the message
            is shown to the user.
        help_line: One sentence, with the unit.
        default: Value when nothing else is given. Omit it to make the setting required.
        hidden: Whether there is no flag and no row in a table for it: the variable and the file
            are for those who measure us.
        metadata: ``flag``, where the flag is not the field's name; ``metavar``, what --help
            calls the value; ``unset``, what holds where the default is empty; and more columns
            for a table that is made from the fields.
    """
    fields: dict[str, Any] = {"parse": parse, "help": help_line, "hidden": hidden, **metadata}
    if default is _REQUIRED:
        return dataclasses.field(metadata=fields)
    return dataclasses.field(default=default, metadata=fields)


class ArgumentParser(argparse.ArgumentParser):
    """As argparse's, but wrong usage exits with 3 and shows a right example; --help has a link.

    Args:
        example: A command line that works.
    """

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        examples = kwargs.pop("epilog", f"example:\n  {example}" if example else "")
        kwargs["epilog"] = "\n\n".join(filter(None, (examples, f"words: {_WORDS}")))
        super().__init__(*args, **kwargs)
        self._example = example

    def error(self, message: str) -> NoReturn:
        lines = [f"{self.prog}: {message}"]
        if self._example:
            lines.append(f"example: {self._example}")
        lines.append(f"help:    {self.prog} --help")
        self.exit(USAGE_EXIT, "\n".join(lines))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message:
            complain(message)
        sys.exit(status)

    def _print_message(self, message: str, file: Any = None) -> None:
        say(message.rstrip("\n"))  # --help and --version: errors leave by ``exit``


def add_options(parser: argparse.ArgumentParser, config_type: type[Any]) -> None:
    """Add a flag for each field of a config that is not hidden, and --config."""
    for field in _shown(config_type):
        text = field.metadata["help"].replace("%", "%%")
        if field.default is not dataclasses.MISSING:
            text += f" Default: {_default(field)}."
        parser.add_argument(
            _flag(field),
            dest=field.name,
            metavar=_metavar(field),
            action="append" if field.metadata["parse"] is words else "store",
            help=f"{text} [{_variable(field.name)}]",
        )
    parser.add_argument(
        "--config", metavar="FILE", help=f"TOML file with the same names. [{ENV_PREFIX}CONFIG]"
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="Print every setting and where it came from, then exit.",
    )


def load(
    config_type: type[ConfigT],
    flags: argparse.Namespace,
    environ: Mapping[str, str],
    siblings: Sequence[type[Any]] = (),
) -> tuple[ConfigT, dict[str, str]]:
    """Build a config. Precedence: flag, then environment, then file, then default.

    Args:
        config_type: The config's type.
        flags: What argparse made of the command line.
        environ: Variables. An empty one is not set.
        siblings: Configs of the program's other commands: their settings may be in the file.

    Returns:
        The config, and for each field where its value came from.

    Raises:
        ConfigError: A required setting is absent, a value is refused, the file cannot be
            read or has an unknown key, or a variable is almost that of a setting.
    """
    fields: Sequence[dataclasses.Field[Any]] = dataclasses.fields(config_type)  # type: ignore[arg-type]
    environ, problems = _unquoted(environ)
    path = flags.config or environ.get(f"{ENV_PREFIX}CONFIG")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    known = {
        field.name for config in (config_type, *siblings) for field in dataclasses.fields(config)
    }
    problems += _mistyped(environ, [_variable(name) for name in known])
    in_file = _read_file(path, known, problems) if path else {}
    for field in fields:
        text, source = _find(field, flags, environ, in_file, path)
        sources[field.name] = source
        if text is None:
            if field.default is dataclasses.MISSING:
                problems.append(f"{_flag(field)} or {_variable(field.name)} is required")
            continue
        try:
            values[field.name] = field.metadata["parse"](text)
        except ValueError as error:
            problems.append(f"{source} {text!r}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return config_type(**values), sources


def render(config: Any, sources: Mapping[str, str]) -> str:
    """Return every setting with its source, one a line, as a file would hold it."""
    rows = [
        (f"{field.name} = {_toml(getattr(config, field.name))}", sources[field.name])
        for field in dataclasses.fields(config)
    ]
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"{left:{width}}  # {source}" for left, source in rows)


def rows(config_type: type[Any]) -> list[types.SimpleNamespace]:
    """Return for each field that is not hidden what a table has of it."""
    return [
        types.SimpleNamespace(
            name=field.name,
            flag=_flag(field),
            variable=_variable(field.name),
            default="required" if field.default is dataclasses.MISSING else _show(field.default),
            metadata=field.metadata,
        )
        for field in _shown(config_type)
    ]


def _shown(config_type: type[Any]) -> "list[dataclasses.Field[Any]]":
    return [field for field in dataclasses.fields(config_type) if not field.metadata["hidden"]]


_METAVARS: dict[Any, str] = {
    count: "N",
    positive: "N",
    tcp_port: "PORT",
    seconds: "SECONDS",
    size: "BYTES",
    timespan: "SECONDS",
    label: "NAME",
    place: "NAME",
}


def _default(field: "dataclasses.Field[Any]") -> str:
    """Return the default as people read it."""
    return _show(field.default) or str(field.metadata.get("unset", "none"))


def _metavar(field: "dataclasses.Field[Any]") -> str:
    default = _METAVARS.get(field.metadata["parse"], "TEXT")
    return str(field.metadata.get("metavar", default))


def _flag(field: "dataclasses.Field[Any]") -> str:
    return str(field.metadata.get("flag", "--" + field.name.replace("_", "-")))


def _variable(name: str) -> str:
    return ENV_PREFIX + name.upper()


def _find(
    field: "dataclasses.Field[Any]",
    flags: argparse.Namespace,
    environ: Mapping[str, str],
    in_file: Mapping[str, str],
    path: str | None,
) -> tuple[str | None, str]:
    name = field.name
    given = getattr(flags, name, None)
    if given is not None:
        return ",".join(given) if isinstance(given, list) else given, _flag(field)
    if _variable(name) in environ:
        return environ[_variable(name)], _variable(name)
    if name in in_file:
        return in_file[name], f"{name} in {path}"
    return None, "default"


def _mistyped(environ: Mapping[str, str], known: list[str]) -> list[str]:
    """Find variables that were surely meant to be one of ours.

    Others are left alone, whatever their prefix: a container's environment may hold the other
    program's settings, and Kubernetes adds variables of its own.
    """
    return [
        f"{name} is unknown; did you mean {near}?"
        for name in environ
        if name.startswith(ENV_PREFIX) and name not in known
        for near in difflib.get_close_matches(name, known, n=1, cutoff=_MISTYPED)
    ]


def _unquoted(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return what is set of our variables, and a complaint of each value in quotation marks.

    A shell takes the marks off, ``docker run --env-file`` does not.
    """
    ours = {key: value for key, value in environ.items() if key.startswith(ENV_PREFIX) and value}
    quoted = [key for key, value in ours.items() if re.fullmatch(r"""(['"]).*\1""", value)]
    return {key: value for key, value in ours.items() if key not in quoted}, [
        f"{key} {ours[key]!r}: write it without the quotation marks; an env file is no shell "
        "script, and they would be part of the value"
        for key in quoted
    ]


def _read_file(path: str, known: set[str], problems: list[str]) -> dict[str, str]:
    try:
        table = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    texts = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(f"{path}: unknown setting {key}{hint}")
        elif isinstance(value, list):
            texts[key] = ",".join(map(str, value))
        elif isinstance(value, str | int | float):
            texts[key] = _show(value)
        else:
            problems.append(f"{path}: {key} must be a text, a number, true, false or a list")
    return texts


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(value)
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return _show(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # A JSON string is a TOML string, except for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def exit_with(prog: str, error: Exception, example: str = "") -> NoReturn:
    """Print what is wrong with the user's input to stderr and exit with 3."""
    lines = [f"{prog}: {line}" for line in str(error).splitlines()]
    if example:
        lines.append(f"example: {example}")
    complain("\n".join(lines))
    raise SystemExit(USAGE_EXIT)
