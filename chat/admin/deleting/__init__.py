"""Deletion of many conversations: its confirmation, its progress."""
