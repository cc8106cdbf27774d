"""The table of who probes whom is what the code does."""

from pathlib import Path

import pytest
from scripts.generate_docs import client_families
from scripts.simulate_mesh import HEAD, ZONES, simulate

PAGE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text().splitlines()


def test_the_table_has_every_size_and_every_number_of_zones():
    rows = [line for line in PAGE[PAGE.index(HEAD) + 2 :] if line.startswith("| ")]
    sizes = [tuple(cell.strip() for cell in row.split("|")[1:3]) for row in rows[:24]]
    assert sizes == [(n, str(zones)) for n in ("10", "100", "1,000", "5,000") for zones in ZONES]


def test_the_page_says_how_many_series_come_with_a_path_and_a_zone():
    def count(healthy: bool, paths: int = 1, zones: int = 1) -> int:
        families = client_families(paths=paths, zones=zones, healthy=healthy)
        return sum(len(family.samples) for family in families)

    one = {healthy: count(healthy) for healthy in (True, False)}
    path = {healthy: count(healthy, paths=2) - one[healthy] for healthy in one}
    zone = {healthy: count(healthy, zones=2) - one[healthy] for healthy in one}
    itself = {healthy: one[healthy] - path[healthy] - zone[healthy] for healthy in one}
    for name, each in (
        ("for each path", path),
        ("for each zone that it probes", zone),
        ("of itself", itself),
    ):
        assert f"| {name} | {each[True]} | {each[False]} |" in PAGE


@pytest.mark.parametrize("nodes", [10, 100])
@pytest.mark.parametrize("zones", ZONES)
def test_a_row_is_what_the_selection_code_gives(nodes, zones):
    assert simulate(nodes, zones).line() in PAGE, "run python -m scripts.simulate_mesh"
