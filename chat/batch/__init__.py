"""Batch processing: prompts from a file, answers into another. `manage.py batch_prompts` is its command line."""
