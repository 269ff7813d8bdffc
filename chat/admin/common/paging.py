"""Pages of the admin's lists, which count and reach the first rows of a large table alone."""

from typing import TYPE_CHECKING, Any, cast

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.utils.functional import cached_property

if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator  # takes no type arguments when it runs

MOST_ROWS = 1_000


class CappedCount(int):
    """A number of rows, of which there are more than this."""

    def __str__(self) -> str:
        return f"over {int(self):,}"


class FirstRowsPaginator(_Paginator):
    """Reads the keys of the first rows once, for the count and for the page.

    A count of all rows that a filter or a search leaves would read the whole table, and a far page all rows before it;
    filters by date lead further.
    """

    @cached_property
    def count(self) -> int:
        return CappedCount(MOST_ROWS) if len(self._keys) > MOST_ROWS else len(self._keys)

    def page(self, number: int | str) -> Page[Any]:
        number = self.validate_number(number)
        first = (number - 1) * self.per_page
        keys = self._keys[: int(self.count)][first : first + self.per_page]
        # In the order of the list.
        return Page(self._rows.filter(pk__in=keys), number, self)

    @property
    def _rows(self) -> QuerySet[Any]:
        return cast("QuerySet[Any]", self.object_list)

    @cached_property
    def _keys(self) -> list[Any]:
        return list(self._rows.values_list("pk", flat=True)[: MOST_ROWS + 1])
