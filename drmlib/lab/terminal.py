"""What a person at a terminal sees while the course runs: one bar; in a log, one line a notebook."""

from typing import TextIO

from tqdm import tqdm

from drmlib.lab.results import SYMBOL, Result

FORMAT = "{n_fmt}/{total_fmt} |{bar:10}| {elapsed}  {desc}{postfix}"


class Reporter:
    """A Watcher of notebooks: bar over notebooks with the cell, and the kernel's own bar behind it."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self.stream, self.total, self.number, self.name = stream, total, 0, ""
        self.bar: tqdm | None = None
        if stream.isatty():
            self.bar = tqdm(total=total, file=stream, bar_format=FORMAT)

    def begin(self, name: str) -> None:
        self.number, self.name = self.number + 1, name
        if self.bar is not None:
            self.bar.set_postfix_str("starting a kernel", refresh=False)
            self.bar.set_description_str(name)
        else:
            self._line(f"[{self.number}/{self.total}] {name} ...")

    def cell(self, number: int, of: int) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str("", refresh=False)
            self.bar.set_description_str(f"{self.name}, cell {number}/{of}")

    def write(self, text: str) -> None:
        """Takes the kernel's stderr: the newest state of its progress bar follows ours."""
        states = [state.strip() for state in text.replace("\n", "\r").split("\r") if state.strip()]
        if self.bar is not None and states:
            self.bar.set_postfix_str(states[-1])

    def flush(self) -> None:
        pass

    def done(self, result: Result) -> None:
        line = (
            f"[{self.number}/{self.total}] {SYMBOL[result.status]} {result.name}: {result.status}, "
            f"{result.seconds:.0f} s, {result.peak_mb:.0f} MB, {result.held} of {len(result.claims)} claims hold"
        )
        if self.bar is not None:
            self.bar.clear()
            self._line(line)
            self.bar.update()
            self.bar.refresh()
        else:
            self._line(line)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.leave = False
            self.bar.close()

    def _line(self, text: str) -> None:
        self.stream.write(text + "\n")
        self.stream.flush()
