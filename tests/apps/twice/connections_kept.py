"""One connection for the process."""

import sqlite3

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

db = rpc.keep("db", lambda: sqlite3.connect("orders.db", check_same_thread=False, timeout=0.1))
db.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY)")


@rpc.dispatcher("/api", lock=True)
def order() -> int:
    return db.execute("INSERT INTO orders DEFAULT VALUES").lastrowid
