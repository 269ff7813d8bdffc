"""What is where over HTTP: the API and the admin."""

from importlib.util import find_spec

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [path("admin/", admin.site.urls)]
if find_spec("chat.api") and find_spec("chat.api.urls"):
    urlpatterns.append(path("", include("chat.api.urls")))
