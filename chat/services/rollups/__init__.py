"""Sums by hour and day for the administration's front page, kept by a thread of the web process.

``advancing`` reads each stored row once, soon after it is complete, and adds it to its hour and its day. ``reading``
returns them for a period. Neither ever reads all rows of a large table.
"""
