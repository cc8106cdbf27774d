import os
import pty

from twocans_client.diagnosis.progress import Progress


def test_on_a_terminal_one_line_is_rewritten_and_then_gone():
    written = []
    master, slave = pty.openpty()
    try:
        progress = Progress(slave, lambda _, data: written.append(data.decode()))
        progress.say("12 probes, 12 ok", 0.5)
        progress.say("12 probes, 12 ok", 0.5)
        progress.clear()
        progress.clear()
    finally:
        os.close(master)
        os.close(slave)
    assert written == ["\r\x1b[K" + "█" * 10 + "░" * 10 + " 12 probes, 12 ok", "\r\x1b[K"]


def test_elsewhere_nothing_is_written(tmp_path):
    written = []
    with (tmp_path / "errors").open("w") as file:
        progress = Progress(file.fileno(), lambda _, data: written.append(data))
        progress.say("12 probes", 0.5)
        progress.clear()
    assert written == []
