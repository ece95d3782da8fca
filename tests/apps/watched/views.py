"""The file that tests save."""


def edition() -> int:
    return 0
