"""Measurements of the whole product beside the best alternative, in one run on one machine. No test, no bound."""
