"""Flask-SQLAlchemy with SQLite, and a login that lives in the session."""

from __future__ import annotations

from contextlib import suppress

import auth
import watch
from flask import Flask, g
from models import User, db
from sqlalchemy.exc import OperationalError

from flask_hotreload import HotRPC

EDITION = 0


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.update(SECRET_KEY="only for tests", SQLALCHEMY_DATABASE_URI="sqlite:///accounts.db")
    rpc = HotRPC(app)
    db.init_app(app)
    app.register_blueprint(auth.auth)
    with app.app_context():
        with suppress(OperationalError):  # another worker was quicker
            db.create_all()
        engine = db.engine
    rpc.on_retire(engine.dispose)

    @app.post("/api")
    @auth.login_required
    def whoami() -> dict:
        watch.pause()
        if g.user is not db.session.get(User, g.user.id):
            raise TypeError("a user of another generation")
        return watch.answer(EDITION, auth.EDITION, g.user.edition(), *User.editions())

    watch.begin(app)
    return app
