"""The command line ``flask-hotreload``, also ``flask hotreload``: an HTTP client of the control routes.

It never imports the application. Importing this imports nothing: :mod:`flask_hotreload.cli.entry` is where it begins.
"""
