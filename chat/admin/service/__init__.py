"""Pages about the running service: what it answers just now, and its model and engine."""
