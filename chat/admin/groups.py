"""Admin of groups: Django's own page, with the limits of the group's users."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest

from chat.access.caller_limits import forget_limits
from chat.models import GroupLimits

if TYPE_CHECKING:
    from django.contrib.admin import StackedInline

    _Inline = StackedInline[GroupLimits, Group]
else:
    _Inline = admin.StackedInline  # takes no type arguments when it runs

admin.site.unregister(Group)


class LimitsInline(_Inline):
    model = GroupLimits
    can_delete = True


@admin.register(Group)
class LimitedGroupAdmin(GroupAdmin):
    inlines = (LimitsInline,)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:  # noqa: ANN401
        super().save_related(request, form, formsets, change)
        forget_limits()
