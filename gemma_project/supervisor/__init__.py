"""The processes of `manage.py serve`: starting, watching and ending them. Knows no chat and no model."""
