"""``python -m paretrim`` is the command line."""

from paretrim.search.cli import command

if __name__ == "__main__":
    command()
