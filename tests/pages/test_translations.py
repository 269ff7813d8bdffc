"""The German texts: complete, compiled, and with the same names to fill in."""

import gettext
import re
from pathlib import Path

import pytest
from django.utils import translation

from chat.api.middleware.error_views import ADVICE, STALE_FORM, TITLES
from chat.pages.texts import SCRIPT_TEXTS
from chat.pages.views import PROBLEMS
from tools.compile_translations import LOCALE, compiled, entries

SOURCES = sorted(LOCALE.rglob("*.po"))
TEMPLATES = LOCALE.parent / "templates"
NAMES = re.compile(r"\{\w+\}|%\(\w+\)s")


def originals() -> set[str]:
    """Return all texts that are marked for translation."""
    pages = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.rglob("*.html"))
    marked = set(re.findall(r"""\{% translate (["'])(.*?)\1 %\}""", pages))
    blocks = re.findall(r"\{% blocktranslate[^%]*%\}(.*?)\{% endblocktranslate", pages)
    lazy = [*SCRIPT_TEXTS.values(), *TITLES.values(), *ADVICE.values(), *PROBLEMS.values(), STALE_FORM]
    texts = {text for _, text in marked} | {re.sub(r"\{\{ (\w+) \}\}", r"%(\1)s", block) for block in blocks}
    return texts | {str(text) for text in lazy}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parts[-3])
def test_every_text_is_translated(source: Path) -> None:
    translations = entries(source.read_text(encoding="utf-8"))
    assert originals() - set(translations) == set()
    assert set(translations) - originals() == {""}
    assert [text for text, translated in translations.items() if not translated] == []
    assert [text for text, other in translations.items() if set(NAMES.findall(text)) != set(NAMES.findall(other))] == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parts[-3])
def test_no_other_application_has_another_translation(source: Path) -> None:
    """Django's own, for one, translates "Show all"; the first application with a text has its translation."""
    translations = entries(source.read_text(encoding="utf-8"))
    with translation.override(source.parts[-3]):
        assert {text: translation.gettext(text) for text in translations if text} == {
            text: translated for text, translated in translations.items() if text
        }


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parts[-3])
def test_the_compiled_file_is_up_to_date(source: Path) -> None:
    translations = entries(source.read_text(encoding="utf-8"))
    assert source.with_suffix(".mo").read_bytes() == compiled(translations)
    with source.with_suffix(".mo").open("rb") as file:
        catalogue = gettext.GNUTranslations(file)
    assert {text: catalogue.gettext(text) for text in translations if text} == {
        text: translated for text, translated in translations.items() if text
    }
