"""The catalogues of the pages: new texts join them, and what browsers get is compiled from them.

python -m tools.translations
"""

import io
import sys
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

WEB = Path(__file__).parents[1] / "src/perdure/web"
LOCALES = WEB / "locale"
DOMAIN = "perdure"
_METHODS = [("**.py", "python"), ("templates/**.j2", "jinja2")]
_KEYWORDS = {"_": None, "N_": None, "ngettext": (1, 2), "counted": (1, 2)}
_WIDTH = 110
_ANY_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def extracted() -> Catalog:
    """Every text that is marked with _(), ngettext(), counted() or N_(), with the files in which it stands."""
    found = Catalog(project="perdure", fuzzy=False)
    for file, _line, text, comments, context in extract_from_dir(WEB, _METHODS, keywords=_KEYWORDS):
        found.add(text, locations=[(file, None)], auto_comments=comments, context=context)
    return found


def catalogue_file(language: str) -> Path:
    """Where the texts of a language are translated by hand."""
    return LOCALES / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def catalogue(language: str) -> Catalog:
    """The texts of a language."""
    with catalogue_file(language).open("rb") as stream:
        return read_po(stream, locale=language, domain=DOMAIN)


def written(found: Catalog) -> bytes:
    """A catalogue as its file: in the order of the files that hold the texts, without days and names."""
    stream = io.BytesIO()
    write_po(stream, found, width=_WIDTH, sort_by_file=True, ignore_obsolete=True, omit_header=True)
    head = f'# The pages of perdure in {found.locale.english_name}.\nmsgid ""\nmsgstr ""\n'
    fields = {
        "Language": found.locale_identifier,
        "Plural-Forms": found.plural_forms,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Transfer-Encoding": "8bit",
    }
    said = "".join(f'"{name}: {value}\\n"\n' for name, value in fields.items())
    return f"{head}{said}\n".encode() + stream.getvalue()


def compiled(language: str) -> bytes:
    """The catalogue of a language as gettext reads it; the same bytes for the same texts."""
    stream, found = io.BytesIO(), catalogue(language)
    found.creation_date = found.revision_date = _ANY_DAY
    write_mo(stream, found)
    return stream.getvalue()


def update(language: str) -> list[str]:
    """Bring a language's catalogue up to date and compile it; the texts that still lack a translation."""
    found = catalogue(language)
    found.update(extracted(), no_fuzzy_matching=True, update_creation_date=False)
    catalogue_file(language).write_bytes(written(found))
    catalogue_file(language).with_suffix(".mo").write_bytes(compiled(language))
    return [str(message.id) for message in found if message.id and not all(strings(message.string))]


def strings(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """A text with its plural forms, or alone; one empty text where there is none."""
    return (given or "",) if given is None or isinstance(given, str) else tuple(given)


def main() -> int:
    """Update every language; 1 when a text lacks its translation."""
    lacking = {folder.name: update(folder.name) for folder in sorted(LOCALES.iterdir()) if folder.is_dir()}
    for language, texts in lacking.items():
        for text in texts:
            sys.stderr.write(f"{language}: not translated: {text}\n")
    return int(any(lacking.values()))


if __name__ == "__main__":
    sys.exit(main())
