"""Paths of the pages beside ``/``, which the API shares with the chat page."""

from django.templatetags.static import static
from django.urls import URLPattern, path, re_path
from django.views.generic import RedirectView

from chat.pages import views


class Favicon(RedirectView):
    """/favicon.ico, which browsers request from pages that name no icon, such as a JSON answer."""

    def get_redirect_url(self, *args: object, **kwargs: object) -> str:
        return static("pages/icon.svg")


app_name = "pages"
urlpatterns: list[URLPattern] = [
    re_path(r"^sign-in/?$", views.sign_in, name="sign-in"),
    re_path(r"^sign-out/?$", views.sign_out, name="sign-out"),
    path("favicon.ico", Favicon.as_view(), name="favicon"),
    re_path(r"^docs/?$", RedirectView.as_view(pattern_name="docs"), name="docs"),
]
