"""Each generation opens a connection; those of the generations before stay open with their modules."""

import sqlite3

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

db = sqlite3.connect("orders.db", check_same_thread=False, timeout=0.1)
db.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY)")


@rpc.dispatcher("/api")
def order() -> int:
    return db.execute("INSERT INTO orders DEFAULT VALUES").lastrowid
