"""Labels of owner keys for people: ``user:3`` is a name, ``local`` a machine without logins."""

from collections.abc import Iterable

from django.contrib.auth import get_user_model

USER_PREFIX = "user:"
SERVICE_PREFIX = "service:"
LOCAL = "local"


def user_key(pk: int) -> str:
    return f"{USER_PREFIX}{pk}"


def owner_labels(owners: Iterable[str]) -> dict[str, str]:
    """Key -> label of each owner, with one query for all users among them."""
    keys = list(dict.fromkeys(owners))
    pks = {key: key.removeprefix(USER_PREFIX) for key in keys if key.startswith(USER_PREFIX)}
    users = get_user_model()._default_manager.filter(
        pk__in=[pk for pk in pks.values() if pk.isdecimal() and len(pk) < 19]
    )
    names = {user_key(pk): name for pk, name in users.values_list("pk", users.model.USERNAME_FIELD)}
    return {key: names.get(key) or _label_without_user(key) for key in keys}


def owners_named(text: str) -> list[str]:
    """Keys of the users whose name contains ``text``."""
    users = get_user_model()._default_manager.all()
    matching = users.filter(**{f"{users.model.USERNAME_FIELD}__icontains": text})
    return [user_key(pk) for pk in matching.values_list("pk", flat=True)[:100]]


def _label_without_user(key: str) -> str:
    if key == LOCAL:
        return "local (no login)"
    if key.startswith(SERVICE_PREFIX):
        return f"service {key.removeprefix(SERVICE_PREFIX)}"
    if key.startswith(USER_PREFIX):
        return f"deleted user {key.removeprefix(USER_PREFIX)}"
    return key
