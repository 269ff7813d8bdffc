"""Admin pages for operators. Django imports this package alone, so it imports every module that registers a page."""

from chat.admin import (
    api_keys,
    conversations,
    generations,
    groups,
    hand_overs,
    memories,
    messages,
    retrievals,
    site,
    usage,
    users,
)
from chat.admin.deleting import progress

__all__ = [
    "api_keys",
    "conversations",
    "generations",
    "groups",
    "hand_overs",
    "memories",
    "messages",
    "progress",
    "retrievals",
    "site",
    "usage",
    "users",
]
