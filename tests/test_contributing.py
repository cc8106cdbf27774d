"""What helpers and releases are told to run is there, and does what it should."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").iterdir())
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def told() -> list[Path]:
    return [
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        ROOT / ".pre-commit-config.yaml",
        *WORKFLOWS,
    ]


@pytest.mark.parametrize("path", told(), ids=lambda path: path.name)
def test_what_is_named_is_there(path):
    text = path.read_text()
    assert set(re.findall(r"(?:[`$] ?|run: |entry: )make ([a-z-]+)", text)) - TARGETS == set()
    named = re.findall(r"(?<![\w/])(?:\.ci|bench|core|docs|tests)/[\w./-]*\w", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_hook_runs_make_check_whatever_changed():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repo["hooks"]
    assert (repo["repo"], hook["language"], hook["entry"]) == ("local", "system", "make check")
    assert (hook["pass_filenames"], hook["always_run"]) == (False, True)


@pytest.mark.parametrize(
    ("name", "command"), [("ci", "sudo bash .ci/run"), ("release", "make publish")]
)
def test_a_workflow_runs_one_command_of_ours_with_no_right_that_it_does_not_use(name, command):
    workflow = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1]["run"].startswith(command)
    rights = {**workflow["permissions"], **job.get("permissions", {})}
    assert {right for right, degree in rights.items() if degree == "write"} <= {"packages"}
    # A tag of an action can be moved, a commit cannot.
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []


def test_publish_builds_both_images_as_images_does_and_more():
    def builds(*command: str) -> list[str]:
        done = subprocess.run(
            ["make", "--dry-run", *command], cwd=ROOT, capture_output=True, text=True, check=True
        )
        lines = re.sub(r"CREATED=\S+", "", done.stdout).splitlines()
        return [line for line in lines if line.startswith("docker")]

    images, published = builds("images", "TAG=0.1.0"), builds("publish", "REGISTRY=example.com/us/")
    more = (
        "docker buildx build --push --platform linux/amd64,linux/arm64 --sbom=true"
        " --provenance=mode=max "
    )
    assert len(images) == 2
    assert [
        line.replace(more, "docker build ").replace("example.com/us/", "") for line in published
    ] == images


def test_publish_refuses_what_no_tag_of_its_version_points_at(tmp_path):
    (tmp_path / "core").mkdir()
    for name in ("Makefile", "core/pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    commit = [
        "-c",
        "user.name=us",
        "-c",
        "user.email=us@example.com",
        "commit",
        "--quiet",
        "--allow-empty",
    ]
    for command in (["init", "--quiet"], [*commit, "--message=one"], ["tag", "v0.0.1"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    version = re.findall(
        r'^version = "(.*)"', (ROOT / "core/pyproject.toml").read_text(), re.MULTILINE
    )[0]

    def tagged() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "tagged"], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert f"no tag v{version} points at this commit" in tagged().stderr
    subprocess.run(["git", "tag", f"v{version}"], cwd=tmp_path, check=True)
    assert tagged().returncode == 0


def test_every_file_is_as_the_editorconfig_says():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    texts = {
        name: (ROOT / name).read_bytes().decode()
        for name in listed.stdout.split("\0")
        if name and not name.endswith(".pcap") and (ROOT / name).exists()
    }
    assert [name for name, text in texts.items() if text and not text.endswith("\n")] == []
    assert [
        name for name, text in texts.items() if re.search(r"[ \t\r]$", text, re.MULTILINE)
    ] == []
    assert [name for name, text in texts.items() if "\t" in text] == ["Makefile"]
