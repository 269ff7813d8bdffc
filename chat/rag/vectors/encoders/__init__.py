"""The sentence encoders that the memories can be searched with, and their common interface."""
