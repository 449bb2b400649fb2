"""``python -m detrex`` is the command ``detrex``."""

from detrex.cli.main import main

if __name__ == "__main__":
    main()
