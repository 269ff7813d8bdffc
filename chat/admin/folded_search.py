"""Admin searches in folded columns: case, width and composition of characters do not matter, on every database."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

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
