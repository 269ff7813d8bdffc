"""Access to framework internals that have no public name, one module per framework.

A release of a framework may change them without notice: each has a test in tests/compat that fails then. Imports
nothing of this project.
"""
