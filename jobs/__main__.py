"""`python -m jobs ...` is `ctxner ...`."""

from jobs.cli import main

main()
