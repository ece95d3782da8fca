"""A connection for each request: nothing stays open."""

import sqlite3

from flask import Flask, g

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)


def database() -> sqlite3.Connection:
    if "db" not in g:
        g.db = sqlite3.connect("orders.db")
        g.db.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY)")
    return g.db


@app.teardown_appcontext
def close(error: BaseException | None) -> None:
    if "db" in g:
        g.db.commit()
        g.db.close()


@rpc.dispatcher("/api")
def order() -> int:
    return database().execute("INSERT INTO orders DEFAULT VALUES").lastrowid
