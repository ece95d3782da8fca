"""An engine and its tables for each generation: what lies in an in-memory database begins anew."""

from flask import Flask
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, func, insert, select
from sqlalchemy.pool import StaticPool

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

ANY_THREAD = {"check_same_thread": False}
engine = create_engine("sqlite://", poolclass=StaticPool, connect_args=ANY_THREAD)
metadata = MetaData()
orders = Table("orders", metadata, Column("number", Integer, primary_key=True))
metadata.create_all(engine)


@rpc.dispatcher("/api")
def order() -> int:
    with engine.begin() as connection:
        connection.execute(insert(orders))
        return connection.scalar(select(func.count()).select_from(orders))
