"""The administration's front page: charts and lists of a period, from the rollups alone."""

from chat.admin.front_page.page import front_page_context

__all__ = ["front_page_context"]
