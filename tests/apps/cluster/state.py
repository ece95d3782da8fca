"""What the process remembers from generation to generation."""

calls = 0
first = None


def served() -> int:
    return calls
