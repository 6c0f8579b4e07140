"""What a person sees while notebooks run: a line for each and one for all in a terminal, plain lines in a log."""

import io
import re
import threading

import pytest

from drmlib.lab import terminal
from drmlib.lab.results import Result
from drmlib.lab.terminal import Reporter


class Terminal(io.StringIO):
    """A screen without a file number, as narrow as COLUMNS says; remembers what stands on it after each write."""

    def __init__(self):
        super().__init__()
        self.screens = []

    def isatty(self):
        return True

    def flush(self):
        self.screens.append(screen(self.getvalue()))


def screen(text):
    """The lines that a terminal shows which understands the three sequences that are used."""
    lines, row = [""], 0
    for piece in re.findall(r"\x1b\[\d*[AJ]|\n|\r|[^\x1b\n\r]+", text):
        if piece.endswith("A") and piece[0] == "\x1b":
            row -= int(piece[2:-1])
            assert row >= 0
        elif piece == "\x1b[J":
            lines[row:] = [""]
        elif piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece != "\r":
            lines[row] += piece
    return lines[:-1]


def held(name):
    return Result(name[:2], name, "A", "Poisoning", status="held", seconds=4.2, cpu_seconds=4.0, peak_mb=300.0)


def told(stream, left=None):
    """Two notebooks at once, of which the second ends first."""
    reporter = Reporter(stream, 3)
    first, second = reporter.begin("01_a"), reporter.begin("02_b")
    first.cell(3, 9)
    first.write("\rtraining:  50%|#####     |\r")
    second.write("warning\n")
    reporter.tick(left)
    reporter.done(second, held("02_b"), left)
    reporter.close()
    return stream


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal, "REDRAW", 0)


END = "[1/3] ✓ 02_b: held, 4 s, 300 MB, 0 of 0 claims hold"


def test_a_log_gets_a_line_at_the_start_and_at_the_end_of_each():
    assert told(io.StringIO(), 400.0).getvalue().splitlines() == ["01_a ...", "02_b ...", f"{END}; about 7 min left"]
    assert told(io.StringIO()).getvalue().splitlines()[-1] == END


def test_a_terminal_has_one_line_for_each_that_runs_and_one_for_all(wide):
    screens = told(Terminal(), 80.0).screens
    running = ["01_a, cell 3/9, training:  50%|#####     |", "02_b, starting a kernel, warning"]
    total = "---------------- 0/3 notebooks, 0:00; about 80 s left"
    assert [*running, total] in screens
    assert [END, running[0], "#####----------- 1/3 notebooks, 0:00; about 80 s left"] in screens
    assert screens[-1] == [END]  # nothing that moved is left


def test_a_narrow_and_low_terminal_is_not_overrun(wide, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "3")
    for lines in told(Terminal()).screens:
        moving = [line for line in lines if line != END]
        assert len(moving) <= 2 and all(len(line) < 20 for line in moving)


def test_a_dumb_terminal_is_a_log(wide, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in told(Terminal()).getvalue()


def test_colours_of_a_kernel_do_not_reach_the_terminal(wide):
    stream = Terminal()
    line = Reporter(stream, 1).begin("01_a")
    line.write("\x1b[31mred\x1b[0m")
    assert line.state == "[31mred[0m" and "\x1b[31m" not in stream.getvalue()


def test_lines_from_several_threads_do_not_mix(wide):
    stream = Terminal()
    reporter = Reporter(stream, 2)
    lines = [reporter.begin(name) for name in ("01_a", "02_b")]
    threads = [threading.Thread(target=lambda line=line: [line.cell(n, 50) for n in range(50)]) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reporter.tick(None)
    assert [line.partition(",")[0] for line in stream.screens[-1][:2]] == ["01_a", "02_b"]
    assert all(len(lines) <= 3 for lines in stream.screens)
