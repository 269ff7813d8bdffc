"""The pages for people, without a browser; in one: tests/browser."""
