"""What a file or folder is that ternrun does not run, and the command that helps: one sentence for each kind.

Nothing is unpacked, unpickled or run: first bytes, names and small JSON files decide, and every read has a bound.
"""
