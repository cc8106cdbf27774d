"""The table of who probes whom is what the code does."""

import pytest
from scripts.generate_docs import client_families
from scripts.simulate_mesh import BEGIN, DOCS, END, HEAD, TABLE, ZONES, extract, simulate

PAGE = DOCS.read_text().splitlines()
ROWS = TABLE.read_text().splitlines()


def table(page: list[str]) -> list[str]:
    return page[page.index(BEGIN) + 1 : page.index(END)]


def test_the_table_has_every_size_and_every_number_of_zones():
    head, _, *rows = table(ROWS)
    assert head == HEAD
    sizes = [tuple(cell.strip() for cell in row.split("|")[1:3]) for row in rows]
    assert sizes == [(n, str(zones)) for n in ("10", "100", "1,000", "5,000") for zones in ZONES]


def test_the_page_has_the_rows_of_three_zones():
    assert table(PAGE) == extract(table(ROWS))
    assert len(table(PAGE)) == 2 + 4


def test_the_page_says_how_many_series_come_with_a_path_and_a_zone():
    def count(healthy: bool, paths: int = 1, zones: int = 1) -> int:
        families = client_families(paths=paths, proxied=0, zones=zones, healthy=healthy)
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
    assert simulate(nodes, zones).line() in ROWS, "run python -m scripts.simulate_mesh"
