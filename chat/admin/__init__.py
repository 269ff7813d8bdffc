"""Admin pages for operators. Django imports this package alone, so it imports every module that registers a page."""

from chat.admin import api_keys, conversations, generations, groups, memories, messages, retrievals, site, users
from chat.admin.deleting import progress

__all__ = [
    "api_keys",
    "conversations",
    "generations",
    "groups",
    "memories",
    "messages",
    "progress",
    "retrievals",
    "site",
    "users",
]
