from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from flask import Blueprint, abort, g, request, session
from models import User, db

EDITION = 0
auth = Blueprint("auth", __name__)


@auth.post("/login")
def login() -> dict:
    name = request.get_json()["name"]
    user = db.session.scalar(db.select(User).filter_by(name=name))
    if user is None:
        user = User(name=name)
        db.session.add(user)
        db.session.commit()
    session["user"] = user.id
    return {"id": user.id}


def login_required(view: Callable) -> Callable:
    @wraps(view)
    def with_user(*args: object, **named: object) -> object:
        g.user = db.session.get(User, session.get("user", 0))
        if g.user is None:
            abort(401)
        return view(*args, **named)

    return with_user
