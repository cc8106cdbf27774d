"""The table of who probes whom is what the code does."""

from pathlib import Path

import pytest
from scripts.simulate_mesh import HEAD, ZONES, simulate

PAGE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text().splitlines()


def test_the_table_has_every_size_and_every_number_of_zones():
    rows = [line for line in PAGE[PAGE.index(HEAD) + 2 :] if line.startswith("| ")]
    sizes = [tuple(cell.strip() for cell in row.split("|")[1:3]) for row in rows[:24]]
    assert sizes == [(n, str(zones)) for n in ("10", "100", "1,000", "5,000") for zones in ZONES]


@pytest.mark.parametrize("nodes", [10, 100])
@pytest.mark.parametrize("zones", ZONES)
def test_a_row_is_what_the_selection_code_gives(nodes, zones):
    assert simulate(nodes, zones).line() in PAGE, "run python -m scripts.simulate_mesh"
