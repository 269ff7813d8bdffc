"""Admin pages for operators. Django imports this package alone, so it imports every module that registers a page."""

from chat.admin import conversations, memories, messages, retrievals, site, users

__all__ = ["conversations", "memories", "messages", "retrievals", "site", "users"]
