"""No half worlds: whatever project code finds of the project belongs to its own generation, whoever asks and when."""

import re
import sys

import flask
import pytest
from shop_of_modules import FILES, Shop

#: Ways to find a module that is loaded in every generation.
LOOKS = [
    "statement",
    "statement_as",
    "from_package",
    "from_module",
    "relative",
    "star",
    "attribute",
    "import_module",
    "dunder_import",
    "sys_modules",
    "own_module",
    "strings",
    "from_object",
    "hints",
    "dataclass",
    "instances",
    "enums",
    "exceptions",
    "supers",
    "circles",
    "pickles",
    "specs",
    "threads",
    "first_import",
    "first_import_by_name",
]


@pytest.fixture
def shop(site):
    shop = Shop(site)
    yield shop.serve()
    shop.gates.leave.set()


@pytest.mark.parametrize("inside", ["waiting", "streaming"])
@pytest.mark.parametrize("name", LOOKS)
def test_every_look_up_finds_the_generation_of_who_looks(shop, name, inside):
    """The old request among them that is the first to import a module; its file is newer by then."""
    old = getattr(shop, inside)(name)
    shop.reload(2)
    assert set(shop.look(name)) == {2}
    shop.write(9)
    assert set(shop.look(name)) == {2}
    assert set(old()) == {1}
    assert set(shop.look(name)) == {2}


@pytest.mark.parametrize("name", LOOKS)
def test_a_request_of_any_older_generation_stays_in_it_through_reloads_and_rollbacks(shop, name):
    first = shop.streaming(name)
    shop.reload(2)
    second = shop.streaming(name)
    shop.reload(3)
    third = shop.streaming(name)
    shop.site.rpc.rollback()
    shop.write(9)
    assert set(shop.look(name)) == {2}
    assert [set(each()) for each in (second, first, third)] == [{2}, {1}, {3}]


# What is imported late, added, deleted ---------------------------------------------------------------------------


def test_new_code_that_is_the_first_to_import_a_module_gets_the_source_that_the_reload_read(shop):
    shop.reload(2)
    assert shop.look("late_is_known") == [False, False]
    shop.write(9)
    assert shop.look("first_import") == [2, 2]
    assert shop.look("first_import_by_name") == [2, 2, 2]
    assert shop.look("late_is_known") == [True, True]


def test_a_module_that_an_old_request_is_the_first_to_import_is_its_own_alone(shop):
    old = shop.streaming("first_import"), shop.streaming("late_is_known"), shop.streaming("first_import_by_name")
    shop.reload(2)
    assert old[0]() == [1, 1]
    assert shop.look("late_is_known") == [False, False]
    assert old[1]() == [True, True]
    assert shop.look("first_import") == [2, 2]
    assert old[2]() == [1, 1, 1]


@pytest.mark.parametrize("name", ["added", "added_by_name", "added_at_top"])
def test_a_file_that_is_added_is_not_importable_before_the_next_reload(shop, name):
    shop.reload(2)
    shop.files["shop/added.py"] = shop.files["shop_extra.py"] = "EDITION = {edition}\n"
    old, older = shop.streaming(name), shop.streaming(name)
    shop.write(3)
    assert "is not part of what runs" in shop.look(name)
    shop.reload(4)
    assert "is not part of what runs" in older()  # though nobody has imported it yet
    assert shop.look(name) == [4]
    assert "No module named" in old()


@pytest.mark.parametrize("name", ["first_import", "first_import_by_name"])
def test_a_module_that_is_deleted_stays_importable_for_who_has_its_source(shop, name):
    first = shop.streaming(name)
    shop.reload(2)
    second = shop.streaming(name)
    del shop.files["shop/late.py"]
    (shop.site.folder / "shop/late.py").unlink()
    assert shop.look("late_is_known") == [False, False]
    shop.reload(3)
    with pytest.raises(ImportError, match=r"No module named 'shop\.late'|cannot import name 'late'"):
        shop.look(name)
    assert set(first()) == {1}
    assert set(second()) == {2}
    with pytest.raises(ImportError):
        shop.look(name)


def test_a_loaded_module_whose_file_is_deleted_is_gone_for_new_code_only(shop):
    assert set(shop.look("first_import")) == {1}
    old = shop.streaming("late_is_known"), shop.streaming("first_import")
    del shop.files["shop/late.py"]
    (shop.site.folder / "shop/late.py").unlink()
    report = shop.reload(2)
    assert "shop.late" not in report.modules
    assert shop.look("late_is_known") == [False, False]
    assert old[0]() == [True, True]
    assert old[1]() == [1, 1]


def test_a_loaded_module_of_a_deleted_package_is_gone_for_new_code_only(shop):
    shop.files["shop/parts/__init__.py"] = "EDITION = {edition}\n"
    shop.files["shop/parts/wheel.py"] = "EDITION = {edition}\n"
    shop.adds_look("wheel", "import shop.parts.wheel as w\nreturn [w.EDITION, shop.parts.EDITION]")
    shop.reload(2)
    assert shop.look("wheel") == [2, 2]
    old = shop.streaming("wheel")
    shop.removes("shop/parts/__init__.py", "shop/parts/wheel.py")
    shop.reload(3)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'shop\.parts"):
        shop.look("wheel")
    assert old() == [2, 2]


def test_a_package_that_becomes_a_module_is_one_for_new_code_only(shop):
    shop.files["shop/parts/__init__.py"] = "EDITION = {edition}\nfrom shop.parts import wheel\n"
    shop.files["shop/parts/wheel.py"] = "EDITION = {edition}\n"
    shop.adds_look("parts", "import shop.parts as p\nreturn [p.EDITION, hasattr(p, 'wheel')]")
    shop.reload(2)
    assert shop.look("parts") == [2, True]
    old = shop.streaming("parts")
    shop.removes("shop/parts/__init__.py", "shop/parts/wheel.py")
    (shop.site.folder / "shop/parts").rmdir()
    shop.files["shop/parts.py"] = "EDITION = {edition}\n"
    shop.reload(3)
    assert shop.look("parts") == [3, False]
    assert old() == [2, True]


# Names of other kinds --------------------------------------------------------------------------------------------


def test_modules_of_a_namespace_package_belong_to_their_generation(shop):
    shop.files["plugins/colour.py"] = "EDITION = {edition}\n"
    shop.files["plugins/late.py"] = "EDITION = {edition}\n"
    shop.adds_look("plugins", "import plugins.colour, plugins\nreturn [plugins.colour.EDITION]")
    shop.adds_look(
        "late_plugin", "import plugins\nfrom plugins import late\nreturn [late.EDITION, plugins.late.EDITION]"
    )
    shop.reload(2)
    assert shop.look("plugins") == [2]
    old = shop.streaming("plugins"), shop.streaming("late_plugin")
    shop.reload(3)
    assert shop.look("plugins") == [3]
    shop.write(9)
    assert old[0]() == [2]
    assert old[1]() == [2, 2]
    assert shop.look("late_plugin") == [3, 3]
    assert shop.look("plugins") == [3]


@pytest.mark.parametrize("folder", ["shop.tables", "tables"])
def test_a_folder_of_data_files_alone_is_imported_as_ever(shop, folder):
    """As ``importlib.resources`` does with a folder that has no ``__init__.py``."""
    read = f"return [int(importlib.resources.files({folder!r}).joinpath('edition').read_text())]"
    shop.adds_look("data", f"import importlib.resources\n{read}")
    path = shop.site.folder.joinpath(*folder.split("."))
    path.mkdir()
    (path / "edition").write_text("1")
    shop.reload(2)
    assert shop.look("data") == [1]
    old = shop.streaming("data")
    shop.files["shop/loads.py"] = f"import {folder}\nEDITION = {{edition}}\n"
    shop.files["shop/models.py"] += "\n        from shop import loads\n"
    shop.reload(3)
    assert shop.look("data") == [1]
    assert old() == [1]
    shop.reload(4)
    assert shop.look("data") == [1]


def test_a_folder_of_sources_that_a_reload_has_not_read_is_not_importable(shop):
    shop.adds_look(
        "deep", "try:\n    import shop.deep\nexcept ImportError as error:\n    return str(error)\nreturn [1]"
    )
    shop.reload(2)
    old = shop.streaming("deep")
    shop.files["shop/deep/added.py"] = "EDITION = {edition}\n"
    shop.write(3)
    assert "is not part of what runs" in shop.look("deep")
    shop.reload(4)
    assert "is not part of what runs" in old()
    assert shop.look("deep") == [1]


@pytest.mark.parametrize("name", ["alias", "legacy.shop.models"])
def test_an_alias_in_sys_modules_leads_to_the_generation_that_made_it(shop, name):
    """One that a module of the project has made when it was imported."""
    shop.files["shop/models.py"] += f"\n        import sys\n        sys.modules[{name!r}] = sys.modules[__name__]\n"
    shop.adds_look("alias", f"return [importlib.import_module({name!r}).EDITION, sys.modules[{name!r}].Item.edition]")
    shop.reload(2)
    assert shop.look("alias") == [2, 2]
    old = shop.streaming("alias")
    shop.reload(3)
    assert shop.look("alias") == [3, 3]
    assert old() == [2, 2]
    assert shop.look("alias") == [3, 3]


def test_an_alias_that_new_code_no_longer_makes_is_gone_for_new_code_only(shop):
    models = shop.files["shop/models.py"]
    shop.files["shop/models.py"] += "\n        import sys\n        sys.modules['alias'] = sys.modules[__name__]\n"
    shop.adds_look("alias", "return [sys.modules['alias'].EDITION] if 'alias' in sys.modules else 'gone'")
    shop.reload(2)
    old = shop.streaming("alias")
    shop.files["shop/models.py"] = models
    shop.reload(3)
    assert shop.look("alias") == "gone"
    assert old() == [2]


def test_a_module_that_puts_another_object_in_its_place_does_so_in_each_generation(shop):
    shop.files["shop/lazy.py"] = """
        import sys, types
        class Lazy(types.ModuleType):
            EDITION = {edition}
        sys.modules[__name__] = Lazy(__name__)
        """
    shop.adds_look("lazy", "from shop import lazy\nimport shop.lazy as again\nreturn [lazy.EDITION, again.EDITION]")
    shop.reload(2)
    assert shop.look("lazy") == [2, 2]
    old = shop.streaming("lazy")
    shop.reload(3)
    assert shop.look("lazy") == [3, 3]
    assert old() == [2, 2]


def test_a_module_with_a_getattr_of_its_own_imports_late_in_its_generation(shop):
    shop.files["shop/web/__init__.py"] = """
        EDITION = {edition}
        def __getattr__(name):
            if name != "lately":
                raise AttributeError(name)
            import importlib
            return importlib.import_module("shop.late").EDITION
        """
    shop.adds_look("lately", "return [shop.web.lately]")
    shop.reload(2)
    old = shop.streaming("lately")
    shop.reload(3)
    shop.write(9)
    assert old() == [2]
    assert shop.look("lately") == [3]


def test_the_main_module_of_the_process_is_not_executed_again(shop):
    import __main__ as main

    before = vars(main).copy()
    shop.adds_look("main", "import __main__\nreturn [__main__ is sys.modules['__main__'], EDITION]")
    report = shop.reload(2)
    assert "__main__" not in report.modules
    assert shop.look("main") == [True, 2]
    assert vars(main) == before


def test_a_module_that_hides_a_name_of_its_package_keeps_hiding_it(shop):
    """``from pkg import name`` finds the attribute, not the submodule of the same name."""
    shop.files["shop/__init__.py"] += "\n        late = 'an attribute'\n"
    shop.adds_look("hidden", "from shop import late\nreturn [late, shop.late]")
    old = shop.streaming("first_import")
    shop.reload(2)
    assert shop.look("hidden") == ["an attribute", "an attribute"]
    assert old() == [1, 1]


def test_handlers_for_exceptions_of_new_code_catch_those_of_new_code(shop):
    assert shop.ask("/sold-out") == "caught 1"
    shop.reload(2)
    assert shop.ask("/sold-out") == "caught 2"


def test_a_kept_object_of_a_reloaded_class_is_a_warning(shop):
    shop.adds_look("kept", "item = shop.rpc.keep('item', make)\nreturn [item.edition, isinstance(item, Item)]")
    assert shop.reload(2).warnings == ()
    assert shop.look("kept") == [2, True]
    report = shop.reload(3)
    [warning] = report.warnings
    assert re.search("'item'.*shop.models.*HOTRELOAD_KEEP", warning)
    assert shop.look("kept") == [2, False]


@pytest.mark.parametrize("keep", ["shop.state", "shop.state.inner"])
def test_third_party_modules_and_kept_ones_are_shared_by_all_generations(shop, keep):
    shop.removes("shop_wsgi.py")
    shop.files["shop/__init__.py"] = shop.files["shop/__init__.py"].replace("roots=", f"keep=[{keep!r}], roots=")
    shop.files["shop/state/__init__.py"] = "EDITION = {edition}\n"
    shop.files["shop/state/inner.py"] = "EDITION = {edition}\nseen = []\n"
    look = "from shop.state import inner\nimport flask, shop.state.inner as again\nassert again is inner\n"
    shop.adds_look("state", look + "inner.seen.append(EDITION)\nreturn [inner.seen, shop.state.EDITION, id(flask)]")
    shop.files["kept_wsgi.py"] = FILES["shop_wsgi.py"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]
    shop.write(1)
    shop.site.adopt(shop.site.load("kept_wsgi"))
    assert shop.look("state")[:2] == [[1], 1]
    old = shop.streaming("state")
    shop.reload(2)
    expected = 1 if keep == "shop.state" else 2
    assert shop.look("state") == [[1, 2], expected, id(flask)]
    assert old() == [[1, 2, 1], 1, id(flask)]
