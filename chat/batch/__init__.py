"""Many prompts from a file, their answers into another: `manage.py batch_prompts` without the command line."""
