"""Which path leads to which view of the HTTP interface; knows nothing else."""

from django.urls import URLPattern, URLResolver

urlpatterns: list[URLPattern | URLResolver] = []
