import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_client.discovery.file_sd import parse_file_sd
from twocans_client.discovery.specs import Kind, Spec


def test_a_file_is_read_in_the_form_of_prometheus():
    groups = [
        {"targets": ["a:1", "dns:b:2"], "labels": {"zone": "z", "app": "y"}},
        {"targets": ["c:3"]},
    ]
    specs, refused = parse_file_sd(json.dumps(groups))
    assert refused == []
    assert specs == [
        Spec("a:1", "a", 1, Kind.ONE, (("app", "y"), ("zone", "z"))),
        Spec("dns:b:2", "b", 2, Kind.DNS, (("app", "y"), ("zone", "z"))),
        Spec("c:3", "c", 3),
    ]


def test_labels_that_prometheus_drops_are_dropped_and_what_it_takes_is_taken():
    meta = {f"__meta_consul_{n}": "x" for n in range(200)}
    labels = {"city": "Köln", "rack": 7, "spare": True, "none": None, **meta, "__address__": "a"}
    (spec,), refused = parse_file_sd(json.dumps([{"targets": ["a:1"], "labels": labels}]))
    assert (dict(spec.labels), refused) == ({"city": "Köln", "rack": "7", "spare": "true"}, [])
    assert parse_file_sd('[{"targets": ["a:1"], "labels": null}]').refused == []


@pytest.mark.parametrize(
    ("group", "problem"),
    [
        (None, "want an object with a list of targets"),
        (1, "want an object with a list of targets"),
        ({}, "want an object with a list of targets"),
        ({"targets": "a:1"}, "want an object with a list of targets"),
        ({"targets": [None]}, "target None is no text"),
        ({"targets": [5000]}, "target 5000 is no text"),
        ({"targets": ["a b"]}, "target 'a b' is no target; write HOST:PORT"),
        ({"targets": ["ä:1"]}, "target '\\xe4:1' must be at most 128 printable"),
        ({"targets": ["x" * 10_000]}, "target 'xxx"),
        ({"targets": [], "labels": []}, "labels: want an object"),
        ({"targets": [], "labels": {"a-b": "c"}}, "label 'a-b': no label name"),
        ({"targets": [], "labels": {"team": "\n"}}, "label team: want at most 128 printable"),
        ({"targets": [], "labels": {"team": "\ud800"}}, "label team: want at most 128 printable"),
        ({"targets": [], "labels": {"team": ["x"]}}, "label team: want at most 128 printable"),
        ({"targets": [], "labels": {"team": "x" * 129}}, "label team: want at most 128 printable"),
        (
            {"targets": [], "labels": {f"l{n}": "" for n in range(65)}},
            "label l64: one more than 64",
        ),
    ],
)
def test_what_is_wrong_is_named_and_costs_no_more_than_itself(group, problem):
    good = {"targets": ["a:1"], "labels": {"team": "net"}}
    specs, refused = parse_file_sd(json.dumps([good, group, {"targets": ["b:1"]}]))
    assert [spec.text for spec in specs] == ["a:1", "b:1"]
    (said,) = refused
    assert said.startswith(f"group 2 of 3: {problem}")
    assert len(said) < 400


def test_a_bad_target_or_label_leaves_the_rest_of_its_group():
    group = {"targets": ["a:1", "b c", "d:1"], "labels": {"x": "ok", "y": "\n"}}
    specs, refused = parse_file_sd(json.dumps([group]))
    assert [(spec.text, spec.labels) for spec in specs] == [
        ("a:1", (("x", "ok"),)),
        ("d:1", (("x", "ok"),)),
    ]
    assert len(refused) == 2


def test_of_too_many_targets_the_first_are_taken():
    groups = [{"targets": [f"host-{n}" for n in range(9_000)]}] * 1_000
    specs, refused = parse_file_sd(json.dumps(groups))
    assert len(specs) == 10_000
    assert refused == ["group 2 of 1000: of all groups 10000 targets are taken, and no more"]


@pytest.mark.parametrize("text", ["", "[", "{}", "null", '"a:1"', "[" * 100_000, "- targets: []"])
@pytest.mark.parametrize("is_yaml", [True, False])
def test_a_file_that_is_no_list_of_groups_is_refused(text, is_yaml):
    if is_yaml and text.startswith("-"):
        return
    with pytest.raises(ValueError, match=r"."):
        parse_file_sd(text, is_yaml=is_yaml)


YAML = """
- targets: &all
    - server-1:5000   # the first
    - 'dns:servers:5000'
  labels: {zone: 01, on: yes, day: 2024-01-01, city: Köln, none: null, empty: , __meta_x: y}
- {targets: *all, labels: {half: "yes}"}}
"""


def test_yaml_is_read_as_prometheus_reads_it():
    pytest.importorskip("yaml")
    specs, refused = parse_file_sd(YAML, is_yaml=True)
    assert refused == []
    assert [spec.text for spec in specs] == ["server-1:5000", "dns:servers:5000"] * 2
    assert dict(specs[0].labels) == {"zone": "01", "on": "yes", "day": "2024-01-01", "city": "Köln"}


@pytest.mark.parametrize("text", ["a: [", "- !!python/object:os.system {}", "? [a]\n: b", "\x00"])
def test_what_is_no_yaml_or_more_than_yaml_is_refused_in_one_line(text):
    pytest.importorskip("yaml")
    with pytest.raises(ValueError, match=r"^not YAML: [ -~]+$"):
        parse_file_sd(text, is_yaml=True)


def test_yaml_that_would_hold_up_the_probes_is_refused():
    with pytest.raises(ValueError, match="write it as JSON"):
        parse_file_sd("- targets: []\n" * 20_000, is_yaml=True)


def test_without_pyyaml_the_refusal_says_what_to_do_and_json_is_read_all_the_same(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ValueError, match=r"pip install 'twocans-client\[yaml\]', or write"):
        parse_file_sd(YAML, is_yaml=True)
    assert len(parse_file_sd('[{"targets": ["a:1"]}]', is_yaml=True).specs) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["targets", "labels", "x"]) | st.text(max_size=5), inner, max_size=4
        )
    ),
)


@given(json_values)
def test_any_document_is_a_list_of_targets_or_is_refused(document):
    try:
        specs, refused = parse_file_sd(json.dumps(document))
    except ValueError:
        return
    assert all(isinstance(spec, Spec) for spec in specs)
    assert all(said.isprintable() for said in refused)
