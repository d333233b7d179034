import sys

from aer_jax.cli import main

sys.exit(main())
