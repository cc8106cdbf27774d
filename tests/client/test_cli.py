import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from integration.harness import PATIENCE_S, ServerProcess, until
from integration.pair import ClientProcess, closed_port, echo_rfc_862, serving
from twocans_client import commands

ENVIRON = {key: value for key, value in os.environ.items() if not key.startswith("TWOCANS_")}

PHASES = ["connect", "greet", "exchange", "close"]


def cli(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "twocans_client", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env={**ENVIRON, **environ},
    )


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ServerProcess("--name=the-server") as process:
        yield f"127.0.0.1:{process.port}"


@contextlib.contextmanager
def any_server(serve) -> Iterator[str]:
    """Run a small asyncio server in a thread."""
    ready = threading.Event()
    found: list[str] = []
    loop = asyncio.new_event_loop()

    async def main() -> None:
        async with serving(serve) as target:
            found.append(target)
            ready.set()
            await stop.wait()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


# --- send ----------------------------------------------------------------------------------


def test_send_prints_exactly_the_reply_and_its_waterfall_elsewhere(server):
    done = cli("send", server, "Hello, server!")
    assert (done.returncode, done.stdout) == (0, "Hello, server!\n")
    shown = [line.split()[0] for line in done.stderr.splitlines()]
    assert [name for name in shown if name in PHASES] == PHASES
    for part in ("client_send", "network", "server_wakeup", "client_wakeup"):
        assert f"{part} " in done.stderr
    assert "the-server" in done.stderr


def test_send_without_kernel_stamps_says_what_it_knows(server):
    done = cli("send", server, "Hello", "--stamps=no")
    assert (done.returncode, done.stdout) == (0, "Hello\n")
    assert "network" in done.stderr
    assert "client_send" not in done.stderr


@pytest.mark.parametrize("text", ["héllo ✓", "two\nlines", "\x1b[31mred", "x" * 70_000])
def test_send_gives_a_pipe_the_bytes_as_they_are(server, text):
    done = cli("send", server, text)
    if len(text) > 65_536:
        assert done.returncode == 2
        assert "the server takes 65536" in done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, text + "\n")


def test_send_plain_needs_none_of_our_servers():
    with any_server(echo_rfc_862) as target:
        done = cli("send", target, "Hello", "--plain")
    assert (done.returncode, done.stdout) == (0, "Hello\n")


def test_send_plain_works_with_our_server_too(server):
    done = cli("send", server, "Hello", "--plain")
    assert (done.returncode, done.stdout) == (0, "Hello\n")


def test_send_to_an_echo_server_that_is_not_ours_says_what_to_do():
    with any_server(echo_rfc_862) as target:
        done = cli("send", target, "Hello")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--plain" in done.stderr


def test_send_where_nobody_listens_is_bad_and_prints_no_reply():
    done = cli("send", f"127.0.0.1:{closed_port()}", "Hello")
    assert (done.returncode, done.stdout) == (2, "")
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr


# --- probe ---------------------------------------------------------------------------------


def test_probe_reports_and_is_good(server):
    done = cli("probe", server, "--count=3", "--interval-s=0.01")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"ok           {server}: 3 probes, 3 ok, 0 fail, 0 void\n")
    for part, clock in (("network", "kernel"), ("server_wakeup", "both"), ("exchange", "user")):
        assert re.search(rf"{part} +{clock}", done.stdout)
    assert re.search(r"where +client .* network .* server host .* server app", done.stdout)
    for direction in ("forward", "reverse"):
        assert re.search(rf"lost {direction} +none of \d+: less than", done.stdout)


def documents(*arguments: str, **environ: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    done = cli("probe", *arguments, "--count=2", "--interval-s=0.01", "--json", **environ)
    return done, json.loads(done.stdout)


def test_probe_makes_more_exchanges_when_asked(server):
    _, document = documents(server, "--exchanges=4")
    assert [len(probe["exchanges"]) for probe in document["probes"]] == [4, 4]
    assert document["splits"] == {"split": 8}


def test_without_kernel_stamps_probe_works_and_says_whose_clock_it_was(server):
    done, document = documents(server, "--stamps=no")
    assert done.returncode == 0
    assert document["splits"] == {"unstamped": 2}
    for probe in document["probes"]:
        assert probe["phases_s"]["network"] > [0.0]
        assert {"t1k", "t4k"}.isdisjoint(probe["exchanges"][0]["stamps_ns"])
        assert "client" not in probe["phases_s"]
    by_kernel = {phase for phase, clocks in document["phases"].items() if "kernel" in clocks}
    assert by_kernel == {"handshake"}, "which is no stamp"
    assert document["segments"]["connections"] == 2, "counters are another thing"


def test_without_counters_probe_works_and_claims_nothing_of_loss(server):
    done, document = documents(server, TWOCANS_TCP_INFO="no")
    assert done.returncode == 0
    assert document["segments"]["connections"] == 0
    assert "forward" not in document["segments"]
    assert {"retransmits", "handshake"}.isdisjoint({*document, *document["phases"]})
    assert document["splits"] == {"split": 2}, "stamps are another thing"


def test_probe_json_is_one_document(server):
    done = cli("probe", server, "--count=3", "--interval-s=0.01", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["outcomes"] == {"ok": 3, "fail": 0, "void": 0}
    assert len(document["probes"]) == 3
    for probe in document["probes"]:
        assert probe["server"]["name"] == "the-server"
        assert probe["local"] == probe["seen_as"]
        (exchange,) = probe["exchanges"]
        stamps = exchange["stamps_ns"]
        assert stamps["t4u"] - stamps["t1u"] == pytest.approx(exchange["duration_s"] * 1e9, abs=1e6)


def test_a_failure_names_both_ends_and_the_next_step_and_has_no_empty_table():
    target = f"localhost:{closed_port()}"
    done = cli("probe", target, "--count=2", "--interval-s=0.01")
    text = " ".join(done.stdout.split())
    head = rf"fail {target} \(\S+\): 2 probes, 0 ok, 2 fail, 0 void refused 2;"
    assert re.match(rf"verdict \w+: .* {head}", text)
    assert re.search(r"the newest from \S+:\d+ to \S+:\d+, connect [\d.]+ [µm]s", text)
    assert "Look next: whether the server is running" in text
    assert "not measured" not in text
    done, document = documents(target)
    assert document["state"] == "fail"
    assert document["verdicts"] or document["missing_evidence"]
    for probe in document["probes"]:
        assert probe["address"][1] == int(target.partition(":")[2])
        assert probe["local"][1] > 0
        assert probe["unfinished"]["phase"] == "connect"
    said = " ".join(cli("send", target, "Hello").stderr.split())
    assert re.match(rf"fail {target} \(\S+\), from \S+:\d+: refused, ", said)
    assert "Look next: whether the server is running" in said


async def mute(reader, writer):
    await reader.read()


def test_the_silence_of_the_other_end_is_not_booked_on_us():
    with any_server(mute) as target:
        done = cli("send", target, "Hello", "--timeout-s=0.3")
    (row,) = [line for line in done.stderr.splitlines() if line.startswith("greet ")]
    assert row.endswith("no answer")
    (own,) = [line for line in done.stderr.splitlines() if line.startswith("client overhead")]
    assert row.count("█") > own.count("█")


def test_no_line_of_a_page_without_a_terminal_is_longer_than_80_columns(server):
    for done in (cli("send", server, "x"), cli("probe", server, "--count=2")):
        assert max(map(len, (done.stdout + done.stderr).splitlines())) <= 80


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "twocans_client", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=ENVIRON) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_who_cuts_probe_off_is_given_what_was_done_so_far(number, code):
    greeted = threading.Event()

    async def silent(reader, writer):
        greeted.set()
        await mute(reader, writer)

    with any_server(silent) as target, started("probe", target, "--count=50", "--json") as process:
        assert greeted.wait(PATIENCE_S)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    document = json.loads(out)
    assert process.returncode == code
    assert document["outcomes"]["void"] == len(document["probes"]) > 0
    assert document["probes"][0]["unfinished"]["phase"] == "greet"
    assert f"cut off, {len(document['probes'])} of 50 probes" in err


def test_a_signal_cuts_a_probe_off_where_it_waits_and_not_in_the_middle_of_its_bookkeeping():
    noted: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        noted.append("the end of a phase")
        await asyncio.sleep(PATIENCE_S)
        noted.append("nobody cut it off")

    assert commands._run(work()) == 128 + signal.SIGTERM
    assert noted == ["the end of a phase"]


@pytest.mark.slow
def test_who_cuts_send_off_is_told_what_did_not_answer():
    greeted = threading.Event()

    async def silent(reader, writer):
        greeted.set()
        await mute(reader, writer)

    with any_server(silent) as target, started("send", target, "x") as process:
        assert greeted.wait(PATIENCE_S)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert re.search(r"^greet .*█ +no answer yet$", err, re.MULTILINE)
    assert "Traceback" not in err


def test_a_reader_that_goes_is_no_traceback(server):
    with started("probe", server, "--count=1") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE_S) == 141


def test_probe_json_of_a_failure_is_one_document_too():
    done = cli("probe", f"127.0.0.1:{closed_port()}", "--count=2", "--interval-s=0.01", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["reasons"] == {"refused": 2}


def test_probe_is_degraded_when_some_are_good_and_some_are_not(server):
    calls = 0

    async def forward(reader, writer):
        while data := await reader.read(65_536):
            writer.write(data)
        writer.write_eof()

    async def every_other(reader, writer):
        nonlocal calls
        calls += 1
        if calls % 2:
            host, _, port = server.partition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            reverse = asyncio.create_task(forward(far_reader, writer))
            with contextlib.suppress(OSError):
                await forward(reader, far_writer)
            await asyncio.wait([reverse])
            far_writer.close()

    with any_server(every_other) as target:
        done = cli("probe", target, "--count=4", "--interval-s=0.2")
    assert done.returncode == 1, done.stdout
    assert "2 ok, 2 fail" in done.stdout


def test_probe_that_could_measure_nothing_is_unknown(server):
    program = (
        "import resource, runpy, sys;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12));"
        f"sys.argv = ['x', 'probe', {server!r}, '--count=30', '--interval-s=0.001'];"
        "runpy.run_module('twocans_client', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 3), done.stderr
    assert " 0 fail" in done.stdout


# --- usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["send"],
        ["send", "localhost:5000"],
        ["send", "http://x", "y"],
        ["send", "localhost:5000", "x", "--timeout-s=never"],
        ["send", "localhost:5000", "x", "--exchanges=2"],
        ["send", "localhost:5000", "x", "--payload-bytes=2"],
        ["probe"],
        ["probe", "a b"],
        ["probe", "localhost:5000", "--count=0"],
        ["probe", "localhost:5000", "--coun=1"],
        ["diagnose"],
        ["diagnose", "a b"],
        ["diagnose", "localhost:5000", "--idle=never"],
        ["run"],
        ["run", "--target=::1"],
        ["run", "--target=a:1", "--interval-s=0"],
        ["run", "--target=a:1", "--config=/does/not/exist"],
        ["run", "--target=a:1", "--log-file=/does/not/exist"],
        ["health", "--http-port=x"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_3_and_shows_a_right_example(arguments):
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (3, "")
    command = arguments[0] if arguments and arguments[0] != "nonsense" else "send"
    assert f"example: twocans-client {command}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", [[], ["run"], ["send"], ["probe"], ["diagnose"], ["health"]], ids=" ".join
)
def test_every_command_has_a_help_with_an_example(command):
    done = cli(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"examples?:\n  twocans-client ", done.stdout)
    if command:
        assert "TWOCANS_TIMEOUT_S" in done.stdout


def test_the_version_is_one_line():
    done = cli("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"twocans-client \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize("command", [["run"], ["send", "a:1", "x"], ["probe", "a:1"]])
def test_print_config_names_every_setting_and_its_source(command):
    done = cli(*command, "--timeout-s=2", "--print-config", TWOCANS_EXCHANGES="7")
    assert done.returncode == 0
    assert re.search(r"timeout_s = 2 +# --timeout-s", done.stdout)
    if command[0] != "send":
        assert re.search(r"exchanges = 7 +# TWOCANS_EXCHANGES", done.stdout)
        assert re.search(r"payload_bytes = 64 +# default", done.stdout)


@pytest.mark.parametrize("command", ["run", "probe", "diagnose"])
def test_a_default_that_is_found_out_is_said_and_not_none(command):
    text = " ".join(cli(command, "--help").stdout.split())
    assert "Default: the machine's host name. [TWOCANS_NAME]" in text


def test_connect_only_measures_handshakes_and_says_what_one_end_cannot_know(server):
    done = cli("probe", server, "--connect-only", "--count=3", "--interval-s=0.01")
    assert done.returncode == 0, done.stderr
    assert "handshake" in done.stdout
    assert "not known    loss and delay of each direction" in done.stdout
    assert "bytes        0 sent, 0 received" in done.stdout


def test_diagnose_says_healthy_with_its_bounds_and_nothing_on_stderr(server):
    done = cli("diagnose", server, "--watch-s=1")
    assert done.returncode in (0, 1), done.stderr  # 1: this machine was short of CPU
    assert done.stderr == ""
    assert "excluded " in done.stdout
    assert "load         " in done.stdout
    printed = cli("diagnose", server, "--idle=10m", "--print-config").stdout
    assert re.search(r"idle_s = 600 +# --idle", printed)


# --- run and health ------------------------------------------------------------------------


def test_health_is_that_of_the_client_that_runs_here(server):
    with ClientProcess(f"--target={server}") as client:
        done = cli("health", f"--http-port={client.http_port}")
        assert (done.returncode, done.stdout) == (0, "ok\n")
        client.stop()
        assert cli("health", f"--http-port={client.http_port}").returncode == 1


@pytest.mark.slow
def test_a_frozen_client_is_not_healthy(server):
    with ClientProcess(f"--target={server}") as client:
        client.probed(1)
        client.signal(signal.SIGSTOP)
        done = cli("health", f"--http-port={client.http_port}")
        client.signal(signal.SIGCONT)
        assert done.returncode == 1
        assert client.stop()["twocans.probes.fail"] == 0


def test_a_port_that_is_taken_is_told_with_what_to_do(server):
    port = server.rpartition(":")[2]
    done = cli("run", "--target=a:1", f"--http-port={port}")
    assert done.returncode == 1
    assert "--http-port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_run_for_a_while_shows_lines_and_a_report_where_there_is_no_terminal(server):
    done = cli(
        *("run", f"--target={server}", "--duration-s=2.5", "--interval-s=0.1"),
        *("--output=table", "--http-port=0"),
    )
    assert done.returncode == 0
    assert re.search(rf"^{server} ok: ", done.stdout, re.MULTILINE)
    assert re.search(rf"^ok +{server}: \d+ probes, \d+ ok, 0 fail", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_run_for_a_while_with_nothing_ok_is_bad_and_with_nothing_at_all_unknown(tmp_path):
    flags = ["--duration-s=1.2", "--interval-s=0.1", "--output=table", "--http-port=0"]
    done = cli("run", f"--target=127.0.0.1:{closed_port()}", *flags)
    assert done.returncode == 2
    assert "\nfail         127.0.0.1:" in done.stdout
    done = cli("run", f"--targets-file={tmp_path}/gone", *flags)
    assert done.returncode == 3
    line = f"targets_file_refused: {tmp_path}/gone, No such file or directory"
    assert done.stdout.splitlines().count(line) == 2, "while it runs, and in its report"


@pytest.mark.slow
def test_a_reader_that_goes_does_not_end_a_run(server):
    command = [sys.executable, "-m", "twocans_client", "run", f"--target={server}"]
    flags = ["--duration-s=3", "--interval-s=0.1", "--output=table", "--http-port=0"]
    with subprocess.Popen(
        [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRON
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        process.wait(PATIENCE_S)
    assert "cannot serve metrics" not in said
    assert '"event.name": "stopped"' in said


def test_the_log_goes_to_the_file_that_is_named(server, tmp_path):
    file = tmp_path / "log"
    done = cli(
        *("run", f"--target={server}", "--duration-s=1", "--output=json"),
        "--interval-s=0.05",
        *("--http-port=0", f"--log-file={file}"),
    )
    assert (done.returncode, done.stdout) == (0, "")
    events = [json.loads(line)["event.name"] for line in file.read_text().splitlines()]
    assert events[0] == "started"
    assert events[-1] == "stopped"


def test_sighup_opens_the_logs_file_anew_and_reads_level_and_targets_again(tmp_path):
    file, settings = tmp_path / "log", tmp_path / "can.toml"
    settings.write_text('log_level = "warning"')
    targets = tmp_path / "targets.json"
    targets.write_text(json.dumps([{"targets": [f"127.0.0.1:{closed_port()}"]}]))

    def events() -> list[str]:
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line)["event.name"] for line in lines]

    flags = [f"--targets-file={targets}", f"--log-file={file}", f"--config={settings}"]
    command = [sys.executable, "-m", "twocans_client", "run", "--output=json", "--http-port=0"]
    with (
        open(os.devnull, "r+b") as null,
        subprocess.Popen(
            [*command, *flags], env=ENVIRON, stdin=null, stdout=null, stderr=null
        ) as can,
    ):
        try:
            until(lambda: "path_failing" in events())
            file.rename(tmp_path / "log.1")
            settings.write_text('log_level = "info"')
            can.send_signal(signal.SIGHUP)
            until(lambda: "reloaded" in events())
            until(lambda: "targets_file_read" in events())  # though it has not changed
            settings.write_text("log_level = 1")
            can.send_signal(signal.SIGHUP)
            until(lambda: "reload_failed" in events())
            can.send_signal(signal.SIGTERM)
            assert can.wait(PATIENCE_S) == 0
        finally:
            can.kill()
    assert events()[-1] == "stopped"


def test_settings_that_do_not_fit_the_budget_are_refused_at_start():
    done = cli("run", "--target=127.0.0.1:1", "--interval-s=0.01")
    assert done.returncode == 3
    assert "--budget" in done.stderr
    assert "--interval-s" in done.stderr
