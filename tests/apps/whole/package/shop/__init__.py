"""A package with a factory and blueprints."""

from __future__ import annotations

from flask import Flask

from . import watch
from .extensions import rpc
from .views import orders, stock

EDITION = 0


def create_app(greeting: str = "Hello") -> Flask:
    app = Flask(__name__)
    app.config.from_object(f"{__name__}.settings.Production")
    app.config["GREETING"] = greeting
    rpc.init_app(app)
    app.register_blueprint(orders.orders)
    app.register_blueprint(stock.stock)
    watch.begin(app)
    return app
