"""The command: list, run, shell."""

import json
import sys

import pytest
from lab.cases import CASES

from lab import __main__ as command


def test_list_has_every_case_and_what_should_be_said_of_it(capsys):
    assert command.main(["list"]) == 0
    said = capsys.readouterr().out
    for case in CASES.values():
        assert f"{case.name} " in said
        assert case.text in said
    assert "syn_loss: path_forward, forward" in said


@pytest.fixture
def brief(able, monkeypatch):
    monkeypatch.setattr(command, "_HEALTHY_S", 1.0)
    monkeypatch.setattr(command, "_AFTER_S", 0.5)


def test_run_shows_what_the_pair_says_and_the_truth_beside_it(brief, capfd):
    assert command.main(["run", "refused_by_server", "--seconds", "1", "--seed", "7"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("lab: refused_by_server --seed 7:")
    begun, fault, ended = said.partition("fault begins")
    assert "path_ok" in begun
    assert fault
    assert "path_failing" in ended
    assert "truth: refused_by_server: server_app" in ended
    assert "wire:  forward passed " in ended


def test_a_seed_draws_the_same_again(brief, capfd):
    drawn = []
    for seed in ("7", "7", "8"):
        command.main(["run", "loss_forward", "--seconds", "0.1", "--seed", seed])
        drawn.append(capfd.readouterr().out.splitlines()[0].partition(": ")[2].split(": ")[1])
    assert drawn[0] == drawn[1] != drawn[2]


def test_shell_is_on_the_clients_host_while_the_fault_is_on(brief, tmp_path, capfd, monkeypatch):
    shell = tmp_path / "shell"
    shell.write_text(
        f"#!{sys.executable}\n"
        "import json, socket\n"
        "try: socket.create_connection(('10.80.2.2', 5000), timeout=5)\n"
        "except OSError as error: print(json.dumps([error.errno]))\n"
    )
    shell.chmod(0o755)
    monkeypatch.setenv("SHELL", str(shell))
    assert command.main(["shell", "rejected_midpath", "--seed", "1"]) == 0
    (said,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("[")]
    assert json.loads(said)[0] in (111, 113)  # ECONNREFUSED, EHOSTUNREACH


def test_a_case_that_there_is_not_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["run", "no_such_case"])
    assert ended.value.code == 2


def test_who_is_not_root_is_told_so(monkeypatch, capsys):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert command.main(["run", "healthy"]) == 1
    assert capsys.readouterr().err == "lab: the lab makes network namespaces: run it as root\n"
