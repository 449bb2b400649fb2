"""Writes annotations of any known format as COCO JSON; see --help."""

from detrex.cli.convert_data import main

if __name__ == "__main__":
    raise SystemExit(main())
