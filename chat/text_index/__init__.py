"""An index of the texts of conversations by runs of three characters, for searches for any part of a text.

Knows no models: it names candidates, which the query that asked compares with the whole text.
"""
