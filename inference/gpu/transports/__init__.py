"""Speaking to a coordinator: one outside, in either generation of its protocol, or the built-in one."""
