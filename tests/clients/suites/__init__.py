"""Test suites of others, run against services of this project."""
