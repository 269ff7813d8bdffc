"""CORS for the origins in CORS_ALLOWED_ORIGINS: the outermost middleware, so that errors have its headers, too."""

from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.http import HttpRequest

from chat.api.middleware.error_views import is_page


class Cors(CorsMiddleware):
    """Takes no thread. Without origins, a preflight request is answered as any other OPTIONS."""

    def is_enabled(self, request: HttpRequest) -> bool:
        return bool(settings.CORS_ALLOWED_ORIGINS) and not is_page(request.path_info)
