"""`python -m api.cli` is `tailsight`."""

from api.cli import main

main()
