"""What the command ``poseglass`` starts: outside the package, so that Ctrl-C is quiet while that is imported."""

import sys


def main() -> None:
    """Import the command line and run it; Ctrl-C while it is being imported ends with status 130 and no traceback."""
    try:
        from poseglass.cli import main as run
    except KeyboardInterrupt:
        print("poseglass: stopped.", file=sys.stderr)
        sys.exit(130)
    run()
