"""`python -m mulo_cli` is `mulo`."""

from mulo_cli.cli.app import main

if __name__ == "__main__":
    main()
