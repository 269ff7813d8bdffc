"""The built-in coordinator: who may have the card, when nobody brings a coordinator of his own.

`GpuLedger` is the truth of who has it; Redis holds what may be lost: expiry, the waiting line, signals.
"""
