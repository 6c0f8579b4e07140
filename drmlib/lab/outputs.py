"""A notebook's outputs made readable and steady: pieces of one stream joined, progress bars at their last state."""

import re
from typing import Any

ADDRESS = re.compile(r" at 0x[0-9a-f]{4,}")


def tidy(notebook: Any) -> None:
    """Joins the pieces of streams in all cells and keeps the last state of progress bars, in place.

    How a stream is cut into pieces depends on timing; a bar writes each of its states behind a carriage return.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in output.text.split("\n"))


def strip_volatile(notebook: Any) -> None:
    """Takes out stderr, views of widgets and addresses in memory, in place: what a stored notebook cannot keep."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                _strip(output)


def _joined(outputs: list[Any]) -> list[Any]:
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == "stream" and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _strip(output: Any) -> None:
    data = output.get("data", {})
    for kind in [kind for kind in data if "widget" in kind]:
        del data[kind]
    if "text/plain" in data:
        data["text/plain"] = ADDRESS.sub("", data["text/plain"])
    if output.output_type == "stream":
        output.text = ADDRESS.sub("", output.text)
