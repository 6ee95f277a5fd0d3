"""The commands of `ternrun train`, one a file: summary (its docstring), examples, flags, body."""
