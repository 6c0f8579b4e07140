"""What a person sees while the course runs: one bar in a terminal, plain lines in a log."""

import io

from drmlib.lab.results import Result
from drmlib.lab.terminal import Reporter


class Terminal(io.StringIO):
    def isatty(self):
        return True


def told(stream):
    reporter = Reporter(stream, 2)
    reporter.begin("01_a")
    reporter.cell(3, 9)
    reporter.write("\rtraining:  50%|#####     |\r")
    reporter.done(Result("01", "01_a", "A", "Poisoning", status="held", seconds=4.2, peak_mb=300.0))
    reporter.close()
    return stream.getvalue()


def test_a_log_gets_lines_and_no_bar():
    assert told(io.StringIO()).splitlines() == [
        "[1/2] 01_a ...",
        "[1/2] ✓ 01_a: held, 4 s, 300 MB, 0 of 0 claims hold",
    ]


def test_a_terminal_gets_one_bar_with_the_cell_and_the_kernels_own(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "40")
    states = told(Terminal()).split("\r")
    assert any("01_a, starting a kernel" in state for state in states)
    assert any(state.rstrip().endswith("01_a, cell 3/9") for state in states)
    assert any("01_a, cell 3/9, training:  50%|#####" in state for state in states)
    assert any("1/2 |" in state for state in states)
