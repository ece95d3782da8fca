"""A service of several modules that a test serves, rewrites and reloads: a factory, a blueprint, models, look-ups.

Every module carries the edition that it was written in. ``LOOKS`` are the ways in which project code finds project
code; each tells the editions of what it has found, so in one generation they are all the same.
"""

from __future__ import annotations

import json
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from types import ModuleType

from conftest import TOKEN

FILES = {
    "shop/__init__.py": """
        from flask import Flask
        from flask_hotreload import HotRPC
        EDITION = {edition}
        rpc = HotRPC(token={token!r}, roots={root!r})

        class Out:
            edition = {edition}

        def create_app(name="shop"):
            from shop.web import views
            app = Flask(__name__)
            app.config.from_object("shop.settings.Production")
            app.config.update(NAME=name, PROPAGATE_EXCEPTIONS=True)
            rpc.init_app(app)
            app.register_blueprint(views.blueprint)
            app.register_error_handler(views.models.OutOfStock, lambda error: f"caught {edition}")
            return app
        """,
    "shop/settings.py": "class Production:\n    EDITION_SET = {edition}\n",
    "shop/models.py": """
        from __future__ import annotations
        import dataclasses, enum, typing
        EDITION = {edition}
        __all__ = ["EDITION", "Item"]

        class Colour(enum.Enum):
            RED = 1

        class OutOfStock(Exception):
            edition = {edition}

        class Base:
            edition = {edition}
            def editions(self) -> list:
                return [{edition}]

        @dataclasses.dataclass
        class Item(Base):
            colour: Colour = Colour.RED
            only: typing.ClassVar[Colour] = Colour.RED

        class Money(typing.NamedTuple):
            item: Item

        def make() -> Item:
            return Item()

        def fail() -> None:
            raise OutOfStock
        """,
    "shop/circle_a.py": """
        EDITION = {edition}
        from shop import circle_b
        def both(): return [EDITION, circle_b.EDITION, circle_b.circle_a.EDITION]
        """,
    "shop/circle_b.py": """
        from shop import circle_a
        EDITION = {edition}
        """,
    "shop/late.py": "EDITION = {edition}\nfrom shop.models import EDITION as OF_MODELS\n",
    "shop/web/__init__.py": "EDITION = {edition}\n",
    "shop/web/views.py": """
        import gates
        from flask import Blueprint, Response, current_app, jsonify
        from .. import models
        from . import looks
        EDITION = {edition}
        blueprint = Blueprint("web", __name__)

        @blueprint.get("/look/<name>")
        def look(name):
            return jsonify(looks.LOOKS[name]())

        @blueprint.get("/wait/<name>")
        def wait(name):
            gates.entered.release()
            assert gates.leave.wait(30)
            return jsonify(looks.LOOKS[name]())

        @blueprint.get("/stream/<name>")
        def stream(name):
            app = current_app._get_current_object()

            def chunks():
                yield "first\\n"
                with app.app_context():
                    found = looks.LOOKS[name]()
                yield app.json.dumps(found) + "\\n"

            return Response(chunks())

        @blueprint.get("/sold-out")
        def sold_out():
            models.fail()
        """,
    "shop/web/looks.py": """
        import gates
        import dataclasses, importlib, inspect, pickle, pkgutil, sys, types, typing
        import shop
        from flask import current_app
        from werkzeug.utils import import_string
        from shop.models import *
        from shop.models import Base, Colour, Money, OutOfStock, fail, make
        EDITION = {edition}
        LOOKS = {{}}

        def look(function):
            LOOKS[function.__name__] = function
            return function

        class Special(Item):
            def editions(self):
                return [*super().editions(), EDITION]

        @look
        def statement():
            import shop.models
            return [shop.EDITION, shop.models.EDITION]

        @look
        def statement_as():
            import shop.models as found
            return [found.EDITION]

        @look
        def from_package():
            from shop import models, EDITION as of_package
            return [models.EDITION, of_package]

        @look
        def from_module():
            from shop.models import Item, make
            return [Item.edition, make().edition]

        @look
        def relative():
            from . import views
            from .views import EDITION
            from .. import models
            from ..models import Item
            return [views.EDITION, EDITION, models.EDITION, Item.edition]

        @look
        def star():
            namespace = {{}}
            exec("from shop.models import *", namespace)
            return [namespace["EDITION"], namespace["Item"].edition, Item.edition]

        @look
        def attribute():
            return [shop.models.EDITION, shop.web.views.EDITION, shop.web.looks.EDITION]

        @look
        def import_module():
            modules = [importlib.import_module("shop.models"), importlib.import_module("..models", __package__)]
            return [module.EDITION for module in modules]

        @look
        def dunder_import():
            return [__import__("shop.models").models.EDITION, __import__("shop.models", fromlist=["x"]).EDITION]

        @look
        def sys_modules():
            copied = dict(sys.modules)[__name__]
            return [sys.modules["shop"].EDITION, sys.modules.get("shop.models").EDITION, copied.EDITION]

        @look
        def own_module():
            own = vars(sys.modules[__name__])
            return [sys.modules[Item.__module__].EDITION, inspect.getmodule(Item).EDITION, own["EDITION"]]

        @look
        def strings():
            return [import_string("shop.models:EDITION"), pkgutil.resolve_name("shop.models:Item").edition]

        @look
        def from_object():
            config = type(current_app.config)("/")
            config.from_object("shop.settings.Production")
            return [config["EDITION_SET"], current_app.config["EDITION_SET"]]

        @look
        def hints():
            hints = typing.get_type_hints(make), typing.get_type_hints(Item), typing.get_type_hints(Money)
            assert hints[1]["colour"] is Colour and hints[2]["item"] is Item
            return [hints[0]["return"].edition]

        @look
        def dataclass():
            @dataclasses.dataclass
            class Crate(Item):
                weight: "Item | None" = None
            made = dataclasses.make_dataclass("Made", [("x", int, 0)], bases=(Item,))
            assert isinstance(dataclasses.replace(Crate(), weight=1), Item)
            return [Crate.edition, made(x=1).edition, typing.get_type_hints(Crate)["weight"].__args__[0].edition]

        @look
        def instances():
            from shop import models
            assert isinstance(make(), models.Item) and issubclass(Special, models.Base)
            assert isinstance(importlib.import_module("shop.models").make(), Item)
            return [type(make()).edition]

        @look
        def enums():
            from shop.models import Colour as again
            assert again.RED is Colour.RED is Colour(1) and make().colour is again.RED
            return [sys.modules[again.__module__].EDITION]

        @look
        def exceptions():
            from shop import models
            try:
                sys.modules["shop.models"].fail()
            except models.OutOfStock as error:
                return [error.edition, OutOfStock.edition]

        @look
        def supers():
            return Special().editions()

        @look
        def circles():
            from shop.circle_a import both
            return both()

        @look
        def pickles():
            loaded = pickle._loads(pickle._dumps([make(), Special(), Colour.RED, Item]))
            assert loaded[2] is Colour.RED and loaded[3] is Item
            return [loaded[0].edition, *loaded[1].editions()]

        @look
        def specs():
            spec = importlib.util.find_spec("shop.models")
            return [spec.loader.get_code("shop.models") is not None and EDITION]

        @look
        def threads():
            rpc, found = shop.rpc, []
            import threading
            thread = threading.Thread(target=rpc.propagate(lambda: found.extend(statement() + import_module())))
            thread.start()
            thread.join()
            return found

        @look
        def first_import():
            from shop import late
            return [late.EDITION, late.OF_MODELS]

        @look
        def first_import_by_name():
            module = importlib.import_module("shop.late")
            return [module.EDITION, module.OF_MODELS, shop.late.EDITION]

        @look
        def late_is_known():
            return "shop.late" in sys.modules, hasattr(shop, "late")

        @look
        def added():
            try:
                import shop.added
            except ModuleNotFoundError as error:
                return str(error)
            return [shop.added.EDITION]

        @look
        def added_by_name():
            try:
                return [importlib.import_module("shop.added").EDITION]
            except ModuleNotFoundError as error:
                return str(error)

        @look
        def added_at_top():
            try:
                import shop_extra
            except ModuleNotFoundError as error:
                return str(error)
            return [shop_extra.EDITION]
        """,
    "shop_wsgi.py": """
        from shop import create_app, rpc
        EDITION = {edition}
        app = create_app()
        """,
}


class Shop:
    """The service in a ``site``; ``gates`` is a module that all its generations share."""

    def __init__(self, site):
        self.site = site
        self.files = dict(FILES)
        gates = sys.modules["gates"] = ModuleType("gates")
        gates.entered, gates.leave = threading.Semaphore(0), threading.Event()
        self.gates = gates

    def write(self, edition):
        """Every file, in this edition."""
        for path, text in self.files.items():
            self.site.write(path, text.format(edition=edition, token=TOKEN, root=str(self.site.folder)))

    def removes(self, *paths):
        """Files, from the disk and from what is written later."""
        for path in paths:
            del self.files[path]
            (self.site.folder / path).unlink()

    def adds_look(self, name, body):
        """One more look-up in what is written from now on."""
        text = textwrap.indent(body.replace("{", "{{").replace("}", "}}"), " " * 12)
        self.files["shop/web/looks.py"] += f"\n        @look\n        def {name}():\n{text}\n"

    def serve(self, edition=1):
        self.write(edition)
        self.site.adopt(self.site.load("shop_wsgi"))
        return self

    def reload(self, edition, **document):
        """Write that edition and serve it; requests that are inside go on."""
        self.write(edition)
        return self.site.rpc.reload(timeout=0, **document)

    def look(self, name):
        return self.ask(f"/look/{name}")

    def ask(self, url):
        with self.site.client().get(url) as response:
            assert response.status_code == 200, response.get_data(as_text=True)
            return response.get_json(silent=True) or response.get_data(as_text=True)

    def waiting(self, name):
        """A request that is inside, in a view function; its answer comes once :meth:`let_go`."""
        pool = ThreadPoolExecutor(1)
        answer = pool.submit(self.ask, f"/wait/{name}")
        pool.shutdown(wait=False)
        assert self.gates.entered.acquire(timeout=10)

        def finish():
            self.gates.leave.set()
            return answer.result(30)

        return finish

    def streaming(self, name):
        """A request that is inside, between two chunks of its body."""
        context = Context()
        response = context.run(self.site.client().get, f"/stream/{name}")
        chunks = response.iter_encoded()
        assert context.run(next, chunks) == b"first\n"

        def finish():
            try:
                return json.loads(context.run(next, chunks))
            finally:
                context.run(response.close)

        return finish
