"""``python -m paretrim`` is the command line."""

from paretrim.search.cli import main

if __name__ == "__main__":
    main()
