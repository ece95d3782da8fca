def edition() -> int:
    return 0
