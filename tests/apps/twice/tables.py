"""A kept MetaData has each table already when the module is imported anew."""

from flask import Flask
from sqlalchemy import Column, Integer, MetaData, Table

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

metadata = rpc.keep("metadata", MetaData)
orders = Table("orders", metadata, Column("number", Integer, primary_key=True))


@rpc.dispatcher("/api")
def columns() -> list[str]:
    return orders.columns.keys()
