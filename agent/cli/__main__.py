"""`python -m agent.cli` is `hutch`."""

from agent.cli.main import main

main()
