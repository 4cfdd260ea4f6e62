"""`python -m fullconv` is `fullconv`."""

from fullconv.cli import main

main()
