"""python -m attrec.cli."""

from attrec.cli import main

main()
