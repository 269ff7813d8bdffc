"""Admin searches in folded columns: case, width and composition of characters do not matter, on every database."""

from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.text import smart_split, unescape_string_literal

from inference.text_forms import folded


class FoldedSearch:
    """Mixin before a ModelAdmin whose ``search_fields`` are folded columns, or hold ASCII alone."""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        results: tuple[QuerySet[Any], bool] = super().get_search_results(  # type: ignore[misc]
            request, queryset, folded(search_term)
        )
        return results


def search_parts(search_term: str) -> Iterator[str]:
    """Yield the words of a search, and its parts in quotation marks, as Django's admin has them."""
    for part in smart_split(search_term):
        is_quoted = len(part) > 1 and part[0] in "\"'" and part[0] == part[-1]
        yield unescape_string_literal(part) if is_quoted else part
