"""A notebook as one HTML file that reads without a network; only the typesetting of formulas asks for one."""

import re
from typing import Any

from nbconvert import HTMLExporter
from traitlets.config import Config

from drmlib.lab.records import FIGURE

NO_ALT = 'alt="No description has been provided for this image"'


def to_html(notebook: Any, title: str) -> bytes:
    """A page of `notebook`, its figures described by their alt texts; without MathJax's server TeX stays as written."""
    exporter = HTMLExporter(
        template_name="lab",
        require_js_url="",
        jquery_url="",
        mermaid_js_url="",
        config=Config({"TemplateExporter": {"exclude_input_prompt": True, "exclude_output_prompt": True}}),
    )
    exporter.log.setLevel("ERROR")  # it warns of images without alt text, which they get below
    page, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return _with_alt_texts(_without_loaded_scripts(page), notebook).encode()


def _without_loaded_scripts(page: str) -> str:
    """`page` without scripts from other servers, save MathJax."""
    loaded = re.compile(r'<script[^>]*\bsrc="([^"]*)"[^>]*>\s*</script>')
    page = loaded.sub(lambda found: found[0] if "mathjax" in found[1].lower() else "", page)
    return re.sub(r'<script type="module">.*?mermaid.*?</script>', "", page, flags=re.DOTALL)


def _with_alt_texts(page: str, notebook: Any) -> str:
    """Images stand in the page in the order of the outputs; nbconvert has no place for their alt texts."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    texts = iter([output.get("metadata", {}).get(FIGURE, {}).get("alt") for output in images])
    return re.sub(re.escape(NO_ALT), lambda found: _alt(next(texts, None)) or found[0], page)


def _alt(text: str | None) -> str:
    from html import escape

    return f'alt="{escape(text)}"' if text else ""
