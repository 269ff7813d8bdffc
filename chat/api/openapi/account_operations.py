"""Operations of a user's account: tokens, API keys, usage, export and deletion."""

from chat.api.openapi.operation import PAGE, STORE_ERRORS, Operation
from chat.schemas.accounts.account_bodies import AccountDeletionBody, AccountExport
from chat.schemas.accounts.key_bodies import KeyAnswer, KeyBody, NewKeyAnswer
from chat.schemas.accounts.token_bodies import LoginBody, LogoutBody, RefreshBody, TokenPair
from chat.schemas.accounts.usage_answers import CallerUsageAnswer

ACCOUNT_OPERATIONS = (
    Operation(
        "token",
        "post",
        "/api/token/",
        "Log in",
        "tokens",
        TokenPair,
        LoginBody,
        errors=(401, 429, 503),
        is_public=True,
    ),
    Operation(
        "token-refresh",
        "post",
        "/api/token/refresh/",
        "The next pair of tokens",
        "tokens",
        TokenPair,
        RefreshBody,
        errors=(401, 503),
        is_public=True,
    ),
    Operation(
        "token-logout",
        "post",
        "/api/token/logout/",
        "End a login, or all of the user's",
        "tokens",
        body=LogoutBody,
        status=204,
        errors=(401, 503),
        is_public=True,
    ),
    Operation(
        "api-key-list",
        "get",
        "/api/keys/",
        "The caller's API keys, newest first",
        "account",
        lists=KeyAnswer,
        errors=(400, 503),
        parameters=PAGE,
    ),
    Operation(
        "api-key-list",
        "post",
        "/api/keys/",
        "A new API key; its text is in this answer alone",
        "account",
        NewKeyAnswer,
        KeyBody,
        status=201,
        errors=(409, *STORE_ERRORS),
    ),
    Operation(
        "api-key-detail", "get", "/api/keys/{pk}/", "One API key", "account", KeyAnswer, errors=(404, *STORE_ERRORS)
    ),
    Operation(
        "api-key-detail",
        "delete",
        "/api/keys/{pk}/",
        "Revoke an API key",
        "account",
        status=204,
        errors=(404, *STORE_ERRORS),
    ),
    Operation(
        "usage",
        "get",
        "/api/usage/",
        "The caller's limits, and what is used of them",
        "account",
        CallerUsageAnswer,
        errors=STORE_ERRORS,
    ),
    Operation(
        "account",
        "delete",
        "/api/account/",
        "Delete the caller with all that belongs to it",
        "account",
        body=AccountDeletionBody,
        status=204,
        errors=(429, *STORE_ERRORS),
    ),
    Operation(
        "account-export",
        "get",
        "/api/account/export/",
        "All that belongs to the caller, as a file",
        "account",
        AccountExport,
        errors=STORE_ERRORS,
    ),
)
