"""Run the node."""

import sys

from genima_sim.coppeliasim.bridge import main

if __name__ == "__main__":
    sys.exit(main())
