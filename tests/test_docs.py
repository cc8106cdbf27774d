"""The documents show what really happens."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lab.outcome import Fault, Name, Outcome, Said
from lab.score import score
from scripts import generate_docs, verdicts_page

from log_calls import all_fields, log_calls
from twocans_client.evidence.results import Reason
from twocans_client.report.next_steps import NEXT_STEPS

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.name: page.read_text() for page in PAGES}


@pytest.mark.parametrize("name", generate_docs.PAGES)
def test_generated_pages_are_current(name):
    assert (ROOT / "docs" / name).read_text() == generate_docs.PAGES[name](), "run make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_is_longer_than_a_screen(page):
    """Except in tables and code, and what links point to."""
    lines = [line for line in prose(page).splitlines() if not line.lstrip().startswith("|")]
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_has_a_word_that_a_colleague_would_not_say(page):
    foreign = (
        r"\b(whoever|whom|for ever|but for|so many|user's clock|on (?:which|each) way|some \d+)\b"
    )
    assert re.findall(foreign, prose(page)) == []


def prose(page: Path) -> str:
    """The text of a page without code and without what links point to."""
    return re.sub(r"^```.*?^```|\]\([^)]*\)", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_heading_finds_it(page):
    links = re.findall(r"\]\(([^):]*)#([^)]+)\)", page.read_text())
    missing = [
        f"{target}#{anchor}"
        for target, anchor in links
        if anchor not in anchors(page.parent / target if target else page)
    ]
    assert missing == []


@pytest.mark.parametrize("command", ["twocans_server", "twocans_client"])
def test_help_links_to_the_words(command):
    text = run(sys.executable, "-m", command, "--help")
    (link,) = re.findall(r"words: https://.*/blob/main/(\S+)#(\S+)", text)
    assert link[1] in anchors(ROOT / link[0])


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def test_every_metric_named_in_a_document_is_exported():
    exported = set()
    for family in [*generate_docs.client_families(), *generate_docs.server_families()]:
        exported |= {family.name, *(sample.name for sample in family.samples)}
    named = set()
    for text in TEXT.values():
        named |= set(re.findall(r"\btwocans_(?:client|server)_[a-z_]*[a-z]\b", text))
    assert named - exported == set()


def test_every_flag_that_a_reader_is_shown_exists():
    helps = ""
    for module, *command in (["twocans_server"], *CLIENT_COMMANDS):
        helps += run(sys.executable, "-m", module, *command, "--help")
    shown = TEXT["README.md"] + TEXT["usage.md"] + TEXT["diagnose.md"]
    ours = re.sub(r"docker compose [^\n`]*", "", shown)
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours))
    assert [flag for flag in flags if flag not in helps] == []


CLIENT_COMMANDS = [
    ["twocans_client", name] for name in ("run", "send", "probe", "diagnose", "health")
]


def test_every_event_that_is_logged_is_in_the_documents_and_the_reverse():
    assert set(first_cells("## Lines", "## Fields")) == {
        "library_message",
        *(call.event for call in log_calls()),
    }


def test_every_field_that_is_logged_is_in_the_documents_and_the_reverse():
    assert set(first_cells("## Fields", "## From a reason")) == all_fields()


def first_cells(begin: str, end: str) -> list[str]:
    """The names in the first column of the tables of a part of docs/logs.md."""
    part = TEXT["logs.md"].split(begin)[1].split(end)[0]
    rows = [line for line in part.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([a-z0-9_.]+)`", row.split("|")[1])]


def test_every_reason_leads_to_a_next_step():
    assert set(NEXT_STEPS) == set(Reason) - {Reason.OK}
    told = first_cells("## From a reason", "## Health")
    assert told == list(NEXT_STEPS)


def test_every_verdict_that_is_declared_anywhere_has_its_part_of_the_page():
    declared = set()
    for source in (ROOT / "client/src/twocans_client/verdicts").glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Kind":
                name = node.args[0] if node.args else node.keywords[0].value
                declared.add(ast.literal_eval(name))
    assert set(re.findall(r"^### (\w+)$", TEXT["verdicts.md"], re.MULTILINE)) == declared


def test_the_page_of_verdicts_has_the_newest_table_of_their_accuracy(tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts_page, "RESULTS", tmp_path)
    assert "Not measured yet" in verdicts_page.verdicts()
    name = Name("loss", "path_forward", "forward")
    fault = Fault("loss_case", name, 20.0, 40.0, None, {})
    named = Outcome("a", "twocans", (fault,), (Said(name, 22.0),), 45.0)
    timed = named._replace(transits=((25.0, -0.00003), (26.0, 0.00007)))
    summary = {
        "scores": {"twocans": score([timed]), "ping": score([named._replace(said=())])},
        "without": {"witness": score([named])},
        "kernel": "6.18.1", "cores": 2, "scenes": 6, "seed": 7, "date": "2026-01-01",
        "probes_per_s": 10,
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(summary))
    page = verdicts_page.verdicts()
    assert "| twocans | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 | 0 of 0 |" in page
    assert "| ping | 0.000 |  | 0.000 |  |  | 0 of 0 |" in page
    assert "| twocans without witness | 1.000 |" in page
    assert "| `loss` | 1 | 1 | 0 | 1.00 | 1/1 |" in page
    assert "| all runs | 1 | 2 | 30 µs | 70 µs | 30 µs |" in page
    (tmp_path / "truth-full.json").write_text(json.dumps(summary | {"seed": 8}))
    assert "from seed 8" in verdicts_page.verdicts()


@pytest.mark.slow
def test_the_readme_shows_what_the_demo_prints():
    """Some of it, in its order: the state first, and then no more than twelve lines."""
    shown = [line for line in console_block("README.md", "make demo") if line.strip(" .")]
    demo = run(sys.executable, "scripts/demo.py", "--seconds", "2").splitlines()
    state = next(at for at, line in enumerate(demo) if line.startswith("ok  "))
    rest = iter([shape(line) for line in demo[state:]])
    # The summary breaks where its figures have it: its second line may begin otherwise.
    lines = [line for line in shown if not line.startswith(" " * 13)]
    assert [line for line in lines if shape(line) not in rest] == []
    assert shown[0].startswith("ok  ")
    assert len(shown) <= 13


@pytest.mark.slow
def test_the_usage_page_shows_what_a_failure_prints():
    command = [sys.executable, "-m", "twocans_client", "probe", "localhost:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    shown = console_block("usage.md", "twocans-client probe localhost:1")
    assert [shape(line) for line in done.stdout.splitlines()] == [shape(line) for line in shown]


def console_block(page: str, command: str) -> list[str]:
    """Return a page's lines of output below a command."""
    (block,) = re.findall(rf"```console\n\$ {re.escape(command)}\n(.*?)```", TEXT[page], re.DOTALL)
    return str(block).splitlines()


def shape(line: str) -> str:
    """Return a line with its figures, units and spacing taken out."""
    words = re.sub(r"\bnone(?! of)", "0", re.sub(r"\s+", " ", line))
    return re.sub(r"<?[\d.]+ ?(?:µs|ms|s\b)?", "N", words)


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
