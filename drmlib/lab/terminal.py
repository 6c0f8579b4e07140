"""What a person sees while notebooks run: in a terminal one line for each and one for all, in a log one for each end.

In a terminal the lines are drawn over each other with plain ANSI sequences, cut to its width and height.
"""

import os
import shutil
import threading
import time
from typing import TextIO

from drmlib.lab.results import SYMBOL, Result

REDRAW = 0.1  # seconds between two drawings that nothing but progress asks for
BAR = 16  # characters


class Line:
    """A Watcher of one notebook: which cell runs, and what the kernel's own progress bar shows."""

    def __init__(self, reporter: "Reporter", name: str) -> None:
        self.reporter, self.name, self.place, self.state = reporter, name, "starting a kernel", ""

    def __str__(self) -> str:
        return ", ".join(text for text in (self.name, self.place, self.state) if text)

    def cell(self, number: int, of: int) -> None:
        self.place, self.state = f"cell {number}/{of}", ""
        self.reporter.draw()

    def write(self, text: str) -> None:
        """Takes the kernel's stderr: the newest state of its progress bar follows the cell."""
        states = [state.strip() for state in text.replace("\n", "\r").split("\r") if state.strip()]
        if states:
            self.state = "".join(character for character in states[-1] if character.isprintable())
            self.reporter.draw()

    def flush(self) -> None:
        pass


class Reporter:
    """Tells on `stream` how a run of `total` notebooks goes on. Called from several threads."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self.stream, self.total, self.finished = stream, total, 0
        self.live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.lines: list[Line] = []
        self.left: float | None = None  # seconds
        self.start, self.drawn_at, self.height = time.monotonic(), 0.0, 0
        self.lock = threading.RLock()
        if self.live and os.name == "nt":
            os.system("")  # which makes older consoles of Windows understand ANSI sequences

    def begin(self, name: str) -> Line:
        """A notebook begins; what is returned is told how it goes on."""
        line = Line(self, name)
        with self.lock:
            self.lines.append(line)
            self._above([] if self.live else [f"{name} ..."])
        return line

    def done(self, line: Line, result: Result, left: float | None = None) -> None:
        """A notebook has ended; `left` seconds are estimated for the rest."""
        with self.lock:
            self.lines.remove(line)
            self.finished, self.left = self.finished + 1, left
            text = (
                f"[{self.finished}/{self.total}] {SYMBOL[result.status]} {result.name}: {result.status}, "
                f"{result.seconds:.0f} s, {result.peak_mb:.0f} MB, {result.held} of {len(result.claims)} claims hold"
            )
            self._above([text + ("" if self.live else _remaining(left))])

    def tick(self, left: float | None) -> None:
        """Time has passed."""
        self.left = left
        self.draw()

    def draw(self) -> None:
        """Draws the lines anew, unless that was done a moment ago; nothing in a log."""
        with self.lock:
            if self.live and time.monotonic() - self.drawn_at >= REDRAW:
                self._above([])

    def close(self) -> None:
        """Takes the lines away."""
        with self.lock:
            self.lines = []
            if self.live:
                self.stream.write(self._erased())
                self.stream.flush()
            self.live = False

    def _above(self, texts: list[str]) -> None:
        """Writes lines that stay, and below them those that move."""
        if self.live:
            columns, rows = _size(self.stream)
            moving = [*map(str, self.lines[: max(0, rows - 2)]), self._total()]
            texts = [*texts, *(text[: columns - 1] for text in moving)]
            self.stream.write(self._erased())
            self.height, self.drawn_at = len(moving), time.monotonic()
        self.stream.write("".join(text + "\n" for text in texts))
        self.stream.flush()

    def _erased(self) -> str:
        up, self.height = (f"\x1b[{self.height}A" if self.height else ""), 0
        return f"{up}\r\x1b[J"

    def _total(self) -> str:
        seconds = int(time.monotonic() - self.start)
        full = BAR * self.finished // max(1, self.total)
        bar = "#" * full + "-" * (BAR - full)
        return (
            f"{bar} {self.finished}/{self.total} notebooks, {seconds // 60}:{seconds % 60:02d}{_remaining(self.left)}"
        )


def _remaining(seconds: float | None) -> str:
    if seconds is None or seconds < 1:
        return ""
    return f"; about {seconds:.0f} s left" if seconds < 90 else f"; about {seconds / 60:.0f} min left"


def _size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal behind `stream`."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        size = shutil.get_terminal_size()
    return max(2, size.columns or 80), size.lines or 24
