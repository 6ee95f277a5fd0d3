"""One file a command. Each offers its docstring (the description), `EXAMPLES`, `add_arguments(parser)`, `run(args)`.

`run` returns the exit code; what goes wrong it raises, and `ternrun.cli` turns that into one sentence.
"""
