"""`python -m perdure`, and `torchrun -m perdure`: the program."""

from perdure.cli.app import main

main()
