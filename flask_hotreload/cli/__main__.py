"""``python -m flask_hotreload.cli`` is ``flask-hotreload``."""

from flask_hotreload.cli.entry import main

main()
