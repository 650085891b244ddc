"""``python -m fastps``."""

import sys

from fastps.cli import main

sys.exit(main())
