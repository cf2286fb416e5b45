"""``python -m miniinfer_cli`` is the ``miniinfer`` command."""

from miniinfer_cli.cli.main import main

main()
