import re
from typing import Any

import pytest

from twocans_client.config import ClientConfig
from twocans_client.paths.purse import exchange_bytes, probe_bytes
from twocans_client.service.budget import Places, check_budget
from twocans_core.errors import ConfigError
from twocans_core.host import procfs


def test_the_default_settings_use_well_under_half_of_the_default_budget():
    config = ClientConfig()
    hourly = 3_600 * probe_bytes(1, 64) + 360 * exchange_bytes(64)
    # Payloads as large as servers take them are the dearest sized exchange that there is.
    sized = 60 * exchange_bytes(65_536)
    assert hourly + sized < config.budget / 5
    check_budget(config)


@pytest.mark.parametrize(
    "settings",
    [
        {"interval_s": 0.01},
        {"payload_bytes": 65_536},
        {"exchanges": 1_000},
        {"budget": 1_000_000},
        {"budget": 400_000, "interval_s": 60.0, "held_interval_s": 0.01},
        {"budget": 10_000, "interval_s": 3_600.0},  # 1 kB at once is less than a probe
        {"interval_s": 86_400.0, "payload_bytes": 16_777_216},
    ],
)
def test_settings_beyond_the_budget_are_refused_and_what_is_advised_is_enough(settings):
    with pytest.raises(ConfigError) as refused:
        check_budget(ClientConfig(**settings))
    advice = re.findall(r"--(budget|interval-s) ([0-9.]+)(MB)?(?= or|,)", str(refused.value))
    assert advice
    for name, value, unit in advice:
        changed = {"budget": int(value) * 10**6} if unit else {"interval_s": float(value)}
        check_budget(ClientConfig(**{**settings, **changed}))
        assert name in ("budget", "interval-s")


def test_without_a_held_connection_it_costs_nothing():
    settings: dict[str, Any] = {"budget": 400_000, "interval_s": 60.0, "held_interval_s": 0.01}
    check_budget(ClientConfig(**settings, held=False))


@pytest.mark.parametrize(
    ("limit", "places"),
    [
        (1_000_000, (1_000, 1_000, 3_000)),
        (128 + 2_100, (1_000, 1_000, 100)),
        (128 + 2_000, (1_000, 1_000, 0)),
        (128 + 1_000, (500, 500, 0)),
    ],
)
def test_idle_connections_get_the_descriptors_that_the_others_leave(monkeypatch, limit, places):
    monkeypatch.setattr(procfs, "descriptor_limit", lambda: limit)
    found = Places(ClientConfig())
    assert (found.probes, found.held, found.idle) == places
    assert found.are_few is (limit != 1_000_000)
