"""Backup and restore of an installation: the database and its generated secrets in one archive."""
