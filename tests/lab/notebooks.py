"""Small notebooks for tests, made with nbformat."""

from pathlib import Path

import nbformat

PARAMETERS = """\
profile: str = "quick"  # size of the run; one of quick, standard, paper
dataset: str = "gaze"  # what is learned; one of gaze, signs
seed: int = 0  # where all random streams start
device: str = "auto"  # auto, cpu, cuda
rate: float = 0.1  # fraction of poisoned samples"""

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}


def write(path: Path, *sources: str, parameters: str = PARAMETERS, title: str = "A notebook") -> Path:
    """A notebook of a title, a parameters cell, and one code cell for each source; not executed."""
    cells = [nbformat.v4.new_markdown_cell(f"# {title}"), code(parameters, "parameters"), *map(code, sources)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)
    return path


def code(source: str, *tags: str):
    cell = nbformat.v4.new_code_cell(source)
    if tags:
        cell.metadata.tags = list(tags)
    return cell
