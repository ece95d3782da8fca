"""What is read out of docstrings."""

import pytest

from flask_hotreload.docstring import Docstring, parse

SPHINX = """Adds two numbers,
    exactly.

    With **care**.

    More.

    :param int size: how
        many
    :param other: the other
    :type other: str
    :returns: the sum
    :rtype: int
    """
GOOGLE = """Adds two numbers,
    exactly.

    With **care**.

    More.

    Args:
        size (int): how
            many
        *other: the other

    Returns:
        the sum
    """
NUMPY = """Adds two numbers,
    exactly.

    With **care**.

    More.

    Parameters
    ----------
    size : int
        how
        many
    other
        the other

    Returns
    -------
    int
        the sum
    """


@pytest.mark.parametrize("text", [SPHINX, GOOGLE, NUMPY])
def test_parameters_and_result_are_read_in_each_of_the_usual_forms(text):
    read = parse(text)
    assert read == Docstring(
        "Adds two numbers, exactly.", "With **care**.\n\nMore.", {"size": "how many", "other": "the other"}, "the sum"
    )


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_nothing_says_nothing(text):
    assert parse(text) == Docstring()


def test_what_has_no_such_form_is_prose():
    text = "Args: none\n\nReturns:\nmore\n\n:raises KeyError: sometimes\n\nParameters\n--"
    assert parse(text) == Docstring("Args: none", "Returns:\nmore\n\n:raises KeyError: sometimes\n\nParameters\n--")


def test_a_lone_surrogate_is_written_as_an_escape():
    assert parse("a \udcff").summary == "a \\udcff"
