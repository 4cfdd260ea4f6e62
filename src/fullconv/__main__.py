"""`python -m fullconv` is `fullconv`."""

from fullconv.cli.main import main

main()
