from flask import Blueprint

EDITION = 0
filters = Blueprint("filters", __name__)


@filters.app_template_filter()
def with_edition(text: str) -> str:
    return f"{text}{EDITION}"
