import argparse

import pytest

from twocans_client.config import ClientConfig, ProbeConfig, ShotConfig
from twocans_core.errors import ConfigError
from twocans_core.process import settings


def load(config_type, *flags, **environ):
    parser = argparse.ArgumentParser()
    settings.add_options(parser, config_type)
    return settings.load(config_type, parser.parse_args(flags), environ)


def test_everything_has_a_default():
    for config_type in (ClientConfig, ProbeConfig, ShotConfig):
        load(config_type)


def test_the_defaults_are_those_of_the_documents():
    config, _ = load(ClientConfig)
    assert (config.interval_s, config.timeout_s, config.http_port) == (1.0, 5.0, 5002)
    assert (config.held, config.held_interval_s) == (True, 10.0)
    assert (config.exchanges, config.payload_bytes, config.drain_grace_s, config.dns_cache_s) == (
        1,
        64,
        30.0,
        30.0,
    )


def test_targets_are_repeated_flags_or_one_variable():
    assert load(ClientConfig, "--target", "a:1", "--target", "b:2")[0].targets == ("a:1", "b:2")
    assert load(ClientConfig, TWOCANS_TARGETS="a:1, b:2")[0].targets == ("a:1", "b:2")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("--interval-s", value) for value in ("0", "-1", "0.0001", "1e300", "25h", "nan", "x")),
        *(("--timeout-s", value) for value in ("0", "1e300")),
        *(("--exchanges", value) for value in ("-1", "1.5", "x")),
        *(("--max-in-flight", value) for value in ("0", "-1")),
        *(("--http-port", value) for value in ("65536", "-1", "http")),
        *(("--output", value) for value in ("yaml", "")),
        *(("--name", value) for value in ("ä", "a\nb", "ä" * 129)),
        *(("--neighbours", value) for value in ("0", "-1", "ten")),
        *(("--explore-per-s", value) for value in ("0", "101", "nan", "fast")),
        *(("--max-paths", value) for value in ("0", "x")),
        *(("--held", value) for value in ("", "sometimes")),
        *(("--held-interval-s", value) for value in ("0", "0.009", "30.1", "1m", "nan")),
        *(("--budget", value) for value in ("0", "999", "1.5GB", "1TB", "-1", "x")),
        *(("--sized-interval-s", value) for value in ("-1", "x")),
        *(("--probe-self", value) for value in ("", "maybe")),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(flag, value):
    with pytest.raises(ConfigError, match=flag):
        load(ClientConfig, f"{flag}={value}")


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        load(ClientConfig, "--interval-s=0", "--http-port=x", TWOCANS_TIMEOUT_S="0")
    assert len(str(caught.value).splitlines()) == 3


def test_the_held_connections_interval_may_be_from_10_ms_to_30_s():
    for text, value in (("10ms", 0.01), ("30s", 30.0)):
        config, _ = load(ClientConfig, f"--held-interval-s={text}", "--held=no")
        assert (config.held_interval_s, config.held) == (value, False)
