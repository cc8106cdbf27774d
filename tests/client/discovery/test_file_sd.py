import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_client.discovery import file_sd
from twocans_client.discovery.file_sd import TargetsFile, parse_file_sd
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


# --- the file, looked at again and again --------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "targets.json"


def write(path: Path, *texts: str) -> None:
    path.write_text(json.dumps([{"targets": texts}]))


def names(file: TargetsFile) -> list[str]:
    return [spec.text for spec in file.specs]


def events(caplog, name):
    return [vars(record) for record in caplog.records if record.msg == name]


@pytest.mark.parametrize("spoil", ["half", "gone", "huge", "deep", "fifo", "folder", "binary"])
def test_a_bad_file_keeps_the_last_good_list_and_says_so(path, caplog, spoil, monkeypatch):
    monkeypatch.setattr(file_sd, "_MAX_FILE_BYTES", 300_000)
    write(path, "a:1")
    file = TargetsFile(path)
    assert file.look()
    good = path.read_text()
    path.unlink()
    match spoil:
        case "half":
            path.write_text(good[: len(good) // 2])
        case "huge":
            path.write_text(good + " " * 300_000)
        case "deep":
            path.write_text("[" * 100_000)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "binary":
            path.write_bytes(b"\xff\xfe[]")
    assert [file.look() for _ in range(3)] == [False] * 3
    assert (names(file), file.refused) == (["a:1"], 1)
    (refusal,) = events(caplog, "targets_file_refused")
    assert refusal["limited"]
    assert refusal["error.message"]
    path.rmdir() if spoil == "folder" else path.unlink(missing_ok=True)
    write(path, "b:1")
    assert file.look(), "it recovers"
    assert (names(file), file.refused) == (["b:1"], 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"targets": ["b:1"], "labels": {"city": "K\u00f6ln"}},
        {"targets": ["b:1"], "labels": {f"l{n}": "x" for n in range(11)}},
        {"targets": ["b:1"], "labels": {"team": None}},
        {"targets": ["b:1"], "labels": {f"__meta_{n}": "x" for n in range(20)}},
        {"targets": ["b:1", "a b"]},
        None,
    ],
)
def test_no_entry_of_a_file_costs_the_others(path, bad, caplog):
    path.write_text(json.dumps([{"targets": ["a:1"]}, bad]))
    is_wrong = bad is None or len(bad["targets"]) > 1
    file = TargetsFile(path)
    assert file.look()
    assert names(file) == ["a:1", "b:1"][: 1 if bad is None else 2]
    assert file.refused == is_wrong
    refusals = events(caplog, "targets_refused")
    assert [said["error.message"][:13] for said in refusals] == ["group 2 of 2:"] * is_wrong
    write(path, "a:1")
    assert file.look()
    assert file.refused == 0


def test_a_file_that_is_missing_or_vanishes_is_said_once_and_found_when_it_is_there(path, caplog):
    file = TargetsFile(path)
    for _ in range(2):
        assert not any(file.look() for _ in range(3))
        assert file.refused == 1
        (refusal,) = events(caplog, "targets_file_refused")
        assert refusal["error.message"] == "No such file or directory"
        caplog.clear()
        write(path, "a:1")
        assert file.look()
        assert (names(file), file.refused) == (["a:1"], 0)
        path.unlink()


@pytest.mark.parametrize("suffix", [".yml", ".yaml"])
def test_a_yaml_file_is_read_as_such(path, suffix):
    pytest.importorskip("yaml")
    path = path.with_suffix(suffix)
    path.write_text("- targets:\n  - a:1  # one\n")
    file = TargetsFile(path)
    assert file.look()
    assert names(file) == ["a:1"]
