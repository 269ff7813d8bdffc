"""Credentials in the query of an address: refused, since addresses are logged, and never ignored."""

from urllib.parse import parse_qsl

from chat.errors import Unauthorized, quoted

# Compared in lower case and with underscores for hyphens.
CREDENTIAL_NAMES = frozenset(
    {
        "access",
        "access_token",
        "api_key",
        "api_token",
        "apikey",
        "auth",
        "auth_token",
        "authorization",
        "authtoken",
        "bearer",
        "bearer_token",
        "id_token",
        "jwt",
        "jwt_token",
        "key",
        "password",
        "secret",
        "service_token",
        "sessionid",
        "token",
        "x_api_key",
        "x_service_token",
    }
)


def refuse_query_credentials(query: str, *, way: str) -> None:
    """Raise Unauthorized if a parameter of the query looks like a credential; ``way`` is where to send it."""
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if name.strip().lower().replace("-", "_") in CREDENTIAL_NAMES:
            message = f"credentials are not read from the address ({quoted(name)}); {way}"
            raise Unauthorized(message, code="credentials_in_query", field=name[:100])
