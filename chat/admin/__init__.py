"""The operators' pages. Django imports this package alone, so that it brings in every module that registers one."""

from chat.admin import memories, site

__all__ = ["memories", "site"]
