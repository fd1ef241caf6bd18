"""`python -m durably_web`: the command line."""

from durably_web.cli import main

if __name__ == "__main__":
    main()
