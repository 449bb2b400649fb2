"""Checks a data set before anything is trained, and shows what is wrong; see --help."""

from detrex.cli.check import main

if __name__ == "__main__":
    raise SystemExit(main())
