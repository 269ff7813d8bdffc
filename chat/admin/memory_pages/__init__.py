"""Forms and pages about stored memories: adding, changing, trying a question."""
