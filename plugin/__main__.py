"""``python -m boxscore``, for torchrun and for machines without the console script."""

from .cli import main

main()
