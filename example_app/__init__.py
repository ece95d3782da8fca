"""A small bureau de change that changes its code while it serves.

``app.py``, ``rates.py``, ``ledger.py`` and ``rates.csv`` are the service. ``python -m example_app.run``
starts it, ``python -m example_app.demo`` reloads it under load and judges every answer.
"""
