"""``python -m example_app.run --port 8000``: the service under gunicorn, left up, with lines to try."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from example_app.server import PACKAGE, GunicornServer, ServerError, exit_on_sigterm
from example_app.steps import ledger

LINES = """\
One call:
  curl -s {url}/api -H 'Content-Type: application/json' -d '{call}'

A batch:
  curl -s {url}/api -H 'Content-Type: application/json' -d '{batch}'

One function called directly, without the JSON-RPC envelope:
  curl -s {url}/api/convert -H 'Content-Type: application/json' -d '{params}'

A deposit, which the ledger of one worker keeps in memory:
  curl -s {url}/ledger/deposit -H 'Content-Type: application/json' -d '{deposit}'

Now change convert() in {package}/rates.py, and reload it:
  curl -s {url}/_reload -H 'Authorization: Bearer {token}' -d '{convert}'

Or in ledger.py; take_over hands the balances to the new ledger:
  curl -s {url}/_reload -H 'Authorization: Bearer {token}' -d '{ledger}'

What runs, on which workers, and who is inside:
  curl -s {url}/_reload -H 'Authorization: Bearer {token}'

Ctrl-C ends it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; the exit status: 0, or 1 if gunicorn did not start or ended by itself."""
    parser = ArgumentParser(prog="python -m example_app.run", description="Run the example service.")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one; default: %(default)s")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="of gunicorn, default: %(default)s")
    options = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        with GunicornServer(
            PACKAGE.parent,
            port=options.port,
            workers=options.workers,
            token=os.environ.get("HOTRELOAD_TOKEN"),
        ) as server:
            print(f"\n{lines(server.url, server.token)}", flush=True)
            server.wait()
            print("gunicorn ended.", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    except (ServerError, OSError) as failure:
        print(f"The service did not start: {failure}", file=sys.stderr)
        return 1


def lines(url: str, token: str) -> str:
    """The curl lines, ready to paste into a shell."""
    params = {"amount": "100.00", "base": "EUR", "target": "JPY"}
    call = {"jsonrpc": "2.0", "id": 1, "method": "convert", "params": params}
    quote = {"jsonrpc": "2.0", "id": 2, "method": "quote", "params": ["EUR", "USD"]}
    return LINES.format(
        url=url,
        token=token,
        package=PACKAGE,
        call=json.dumps(call),
        batch=json.dumps([call, quote]),
        params=json.dumps(params),
        deposit=json.dumps({"currency": "EUR", "amount": "100.00"}),
        convert=json.dumps({"data": {"dispatcher": "convert", "scriptPath": "rates.py", "path": "/api"}}),
        ledger=json.dumps(ledger("better receipts")),
    )


if __name__ == "__main__":
    sys.exit(main())
