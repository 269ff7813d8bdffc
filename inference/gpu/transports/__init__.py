"""Transports to a coordinator: to one outside, in either generation of its protocol, or to the built-in one."""
