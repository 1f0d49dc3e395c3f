"""One self-contained page: the templates, the inlined scripts and style, and the policy that allows only these.

The templates speak the language in force (`perdure.web.words`).
"""

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from perdure.web import figures, reported, words
from perdure.web.headline import verdict_word
from perdure.web.visible import capital, clip, json_for_script, one_line, visible

_SCRIPTS = ("vendor/vega.min.js", "vendor/vega-lite.min.js", "vendor/vega-embed.min.js", "report.js")
_STYLE = "report.css"
# The spelling of the pages is British; other languages stand for themselves.
_TAGS = {words.DEFAULT: "en-GB"}


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


def _said(text: str, **values: Any) -> Markup:
    """A sentence in the language in force, with its values escaped and made visible."""
    return _filled(words._(text), values)


def _counted(one: str, many: str, count: int, **values: Any) -> Markup:
    return _filled(words.ngettext(one, many, count), {"count": words.whole(count), **values})


def _filled(text: str, values: dict[str, Any]) -> Markup:
    seen = {name: visible(value) if type(value) is str else value for name, value in values.items()}
    # Named fields of our own sentences alone; what fills them is escaped, never parsed.
    said = escape(text)
    return said.format_map(seen) if values else said


def _in_turn(*sentences: str) -> Markup:
    return Markup(words.blank()).join(sentence for sentence in sentences if sentence)  # noqa: S704 - a blank or nothing


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
    """The templates with autoescape on, every text made visible, the words of the language and filters for figures."""
    made = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {
        "_": _said,
        "in_turn": _in_turn,
        "ngettext": _counted,
        "percent_sign": words.percent_sign,
    }
    made.filters |= {
        "capital": capital,
        "clip": clip,
        "decimal": figures.decimal,
        "difference": figures.difference,
        "difference_interval": figures.difference_interval,
        "duration": figures.duration,
        "embedded": _embedded,
        "every_reported": reported.every,
        "number": figures.number,
        "one_line": one_line,
        "percent": figures.percent,
        "percentage": figures.percentage,
        "perplexity": figures.perplexity,
        "points": figures.points,
        "ratio": figures.ratio,
        "reported": reported.told,
        "share": figures.share,
        "share_interval": figures.share_interval,
        "size": figures.size,
        "verdict": verdict_word,
        "whole": figures.whole,
    }
    return made


def render(template: str, **context: Any) -> str:
    """The page made from a template of this package in the language in force, its scripts, style and policy inside."""
    page = environment().get_template(template)
    return page.render(
        **context,
        lang=_TAGS.get(words.language(), words.language()),
        policy=policy(),
        style=_inlined(_STYLE),
        scripts=[_inlined(name) for name in _SCRIPTS],
    )
