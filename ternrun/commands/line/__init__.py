"""How a command line is read: flags, other programs' spellings of them, and words that name a model or are text."""
