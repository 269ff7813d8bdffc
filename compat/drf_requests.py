"""Django REST framework's request. Internal used: ``Request._request``."""

from django.http import HttpRequest
from rest_framework.request import Request


def django_request(request: Request) -> HttpRequest:
    """Return Django's request inside DRF's."""
    return request._request
