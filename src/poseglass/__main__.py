"""``python -m poseglass``: the same as ``poseglass``."""

from poseglass.cli import main

if __name__ == "__main__":
    main()
