import argparse
import dataclasses
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_core.process import settings
from twocans_core.process.common import CommonConfig


def test_nothing_has_to_be_given():
    config, sources = settings.load(CommonConfig, argparse.Namespace(config=None), {})
    assert config == CommonConfig()
    assert set(sources.values()) == {"default"}


@pytest.mark.parametrize("name", ["stamps", "tcp_info", "metrics"])
def test_what_costs_something_is_on_and_can_be_switched_off(name):
    assert getattr(CommonConfig(), name) is True
    no_flags = argparse.Namespace(config=None)
    config, _ = settings.load(CommonConfig, no_flags, {f"TWOCANS_{name.upper()}": "no"})
    assert dataclasses.asdict(config) == dataclasses.asdict(CommonConfig()) | {name: False}


def test_what_only_a_bench_switches_off_has_no_flag_and_no_row():
    parser = settings.ArgumentParser()
    settings.add_options(parser, CommonConfig)
    assert "--stamps" in parser.format_help()
    for name in ("tcp_info", "metrics"):
        assert f"--{name.replace('_', '-')}" not in parser.format_help()
        assert name not in [row.name for row in settings.rows(CommonConfig)]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_control_character_of_a_setting_reaches_the_terminal(text):
    config = CommonConfig(http_host=text)
    sources = {field.name: "default" for field in dataclasses.fields(config)}
    printed = settings.render(config, sources)
    assert not any(
        ord(character) < 0x20 or ord(character) == 0x7F
        for character in printed
        if character != "\n"
    )
    assert tomllib.loads(printed)["http_host"] == text
