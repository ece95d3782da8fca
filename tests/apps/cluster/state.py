"""What the process remembers from generation to generation."""

requests = 0
calls = 0
first = None


def served() -> int:
    return calls
