"""`python -m ternrun`."""

import sys

from ternrun.cli import main

sys.exit(main())
