"""Requests that stay inside a generation until a test lets them go."""

from __future__ import annotations

import threading

#: What a service under test has in its file, so that a request of it can be made to stay. It finishes with the value
#: of an expression that is evaluated only then, by code of the request's own generation.
WAIT = """
@app.get("/stay/<key>")
def stay(key):
    entered, leave, expression = rpc.keep("stays", dict)[key]
    entered.set()
    assert leave.wait(10)
    return str(eval(expression, globals()))
"""


class Stay:
    """A request to the service of ``site``, inside from the start of the ``with`` block to :meth:`leave`."""

    def __init__(self, site, expression="number"):
        self._site = site
        self._entered, self._leave = threading.Event(), threading.Event()
        self._answer = None
        self._thread = threading.Thread(target=self._ask)
        site.rpc.keep("stays", dict)[str(id(self))] = self._entered, self._leave, expression

    def _ask(self):
        with self._site.client().get(f"/stay/{id(self)}") as response:
            self._answer = response.status_code, response.get_data(as_text=True)

    def __enter__(self):
        self._thread.start()
        assert self._entered.wait(10)
        return self

    def __exit__(self, *_error):
        self._leave.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def leave(self):
        """Let it finish; return what it answers."""
        self.__exit__()
        status, text = self._answer
        assert status == 200, self._answer
        return text
