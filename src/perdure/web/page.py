"""One self-contained page: the templates, the inlined scripts and style, and the policy that allows only these."""

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from perdure.web import figures
from perdure.web.visible import capital, clip, json_for_script, one_line, visible

_SCRIPTS = ("vendor/vega.min.js", "vendor/vega-lite.min.js", "vendor/vega-embed.min.js", "report.js")
_STYLE = "report.css"


def read_text(folder: str, name: str) -> str:
    """A file of this room as it is."""
    # bytes, not text mode: what the policy hashes must be what the page carries.
    return resources.files("perdure.web").joinpath(folder, *name.split("/")).read_bytes().decode("utf-8")


def _template(name: str) -> str | None:
    try:
        return read_text("templates", name)
    except FileNotFoundError:
        return None


@cache
def inline(name: str) -> str:
    """A file of the static folder as it stands in the page: without the line that names its source map."""
    lines = read_text("static", name).split("\n")
    return "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL="))


def source_hash(text: str) -> str:
    """The source expression of a content security policy that allows this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def policy() -> str:
    """The content security policy of the page: its own scripts and style by hash, pictures in its own text."""
    scripts = " ".join(source_hash(inline(name)) for name in _SCRIPTS)
    return (
        f"default-src 'none'; script-src {scripts}; style-src {source_hash(inline(_STYLE))}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _shown(value: Any) -> Any:
    """What an expression of a template may print: strings with their unseen signs spelt out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _embedded(data: Any) -> Markup:
    # json_for_script leaves no <, > or &: the text cannot end its script element.
    return Markup(json_for_script(data))  # noqa: S704


def _inlined(name: str) -> Markup:
    # Only the package's own files, which hold no closing tag of script or style.
    return Markup(inline(name))  # noqa: S704


@cache
def environment() -> Environment:
    """The templates of pages that stand alone."""
    return new_environment()


def new_environment() -> Environment:
    """The templates with autoescape on, every text made visible, and the filters for figures."""
    made = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals["_"] = str  # pages that stand alone speak English; the server puts its catalogues here
    made.filters |= {
        "capital": capital,
        "clip": clip,
        "counted": figures.counted,
        "difference": figures.difference,
        "difference_interval": figures.difference_interval,
        "duration": figures.duration,
        "embedded": _embedded,
        "number": figures.number,
        "one_line": one_line,
        "percent": figures.percent,
        "perplexity": figures.perplexity,
        "points": figures.points,
        "ratio": figures.ratio,
        "share": figures.share,
        "share_interval": figures.share_interval,
        "size": figures.size,
        "whole": figures.whole,
    }
    return made


def render(template: str, **context: Any) -> str:
    """The page made from a template of this package, with its scripts, style and policy inside."""
    page = environment().get_template(template)
    return page.render(
        **context,
        policy=policy(),
        style=_inlined(_STYLE),
        scripts=[_inlined(name) for name in _SCRIPTS],
    )
