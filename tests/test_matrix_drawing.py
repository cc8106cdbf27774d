"""The matrix that the README shows: what is drawn of which numbers."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from scripts.dashboards.draw import COLOURS, Cell, draw
from scripts.dashboards.grafana import CONNECT_STEPS, LOSS_STEPS

SVG = "{http://www.w3.org/2000/svg}"


def cell(source, target, value):
    return Cell(f"node-{source}", f"zone-{source[0]}", f"node-{target}", f"zone-{target[0]}", value)


def drawn(loss, connect):
    """Return each cell's colour and text, and every text, from left to right and down."""
    root = ET.fromstring(draw(loss, connect))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    cells = []
    elements = list(root)
    for rect, text in pairwise(elements):
        if rect.tag == f"{SVG}rect" and rect.get("fill"):
            cells.append((rect.get("fill"), text.text))
    return cells, texts


@pytest.mark.parametrize(
    ("value", "colour", "text"),
    [
        (0, "green", "0 %"),
        (0.0033, "yellow", "0.33 %"),
        (0.01, "orange", "1 %"),
        (0.1, "red", "10 %"),
        (1, "red", "100 %"),
    ],
)
def test_loss_has_the_dashboards_colour_and_its_share_in_it(value, colour, text):
    assert drawn([cell("a1", "b1", value)], [])[0] == [(COLOURS[colour], text)]


@pytest.mark.parametrize(
    ("value", "colour", "text"),
    [
        (0.00032, "super-light-blue", "0.32 ms"),
        (0.012, "semi-dark-blue", "12 ms"),
        (0.25, "orange", "250 ms"),
        (1.5, "red", "1.5 s"),
    ],
)
def test_connect_time_has_the_dashboards_colour_and_its_length_in_it(value, colour, text):
    assert drawn([], [cell("a1", "b1", value)])[0] == [(COLOURS[colour], text)]


def test_every_colour_of_the_dashboard_can_be_drawn():
    assert {colour for _, colour in (*LOSS_STEPS, *CONNECT_STEPS)} == COLOURS.keys()


def test_nodes_are_in_the_order_of_their_zones_and_both_matrices_have_all():
    loss = [cell("b1", "a1", 0), cell("a1", "b1", 1), cell("a1", "c1", 1)]
    _, texts = drawn(loss, [cell("b1", "a1", 0.001)])
    half = texts[texts.index("Mean connect time") :]
    columns = ["node-a1", "node-b1", "node-c1"]
    for matrix in (texts, half):
        assert matrix[2:5] == columns
        assert [text for text in matrix[5:13] if text.startswith("node")] == ["node-a1", "node-b1"]
    # No path leads from a node to itself, nor where nothing is probed.
    assert half[5:] == [
        "node-a1",
        "\u00b7",
        "\u00b7",
        "\u00b7",
        "node-b1",
        "1 ms",
        "\u00b7",
        "\u00b7",
    ]


def test_a_name_cannot_break_the_picture():
    _, texts = drawn([Cell("<a&b>", "", "x", "", 0)], [])
    assert "<a&b>" in texts
