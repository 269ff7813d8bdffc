"""Base of the admin pages for rows that only the service writes."""

from typing import TYPE_CHECKING, Any

from django.contrib.admin import ShowFacets
from django.contrib.admin.options import ModelAdmin
from django.db.models import Model
from django.http import HttpRequest, HttpResponse

from chat.admin.common.paging import FirstRowsPaginator

if TYPE_CHECKING:
    AnyModelAdmin = ModelAdmin[Any]
else:
    AnyModelAdmin = ModelAdmin  # takes no type arguments at run time


class ReadOnlyAdmin(AnyModelAdmin):
    """Shows rows without forms to add, change or delete them."""

    actions_on_bottom = False
    list_per_page = 50
    paginator = FirstRowsPaginator
    # A second count of the whole table takes seconds once it is large.
    show_full_result_count = False
    # Counts of every filter over the whole table take longer still.
    show_facets = ShowFacets.NEVER

    class Media:
        css = {"all": ["chat/admin.css", "chat/phone_lists.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def page_context(self, request: HttpRequest, obj: Any) -> dict[str, object]:  # noqa: ANN401  the subclass's model
        """Return the template context of one object's page, in addition to the form."""
        return {}

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Model | None = None,
    ) -> HttpResponse:
        context |= self.page_context(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may stop unfinished answers; named so for ``permissions=["cancel"]``."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")
