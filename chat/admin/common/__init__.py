"""Bases, cells and texts of all pages for operators."""
