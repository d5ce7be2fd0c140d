"""`python -m madmail`: the command line."""

import sys

from madmail.cli.main import main

sys.exit(main())
