"""A service every part of which tells the number that it was written with, and what is asked of it."""

from staying import WAIT

BODY = (
    """
import parts
number = {number}
state = []

@rpc.dispatcher("/api")
def which() -> int:
    return number

@rpc.dispatcher("/api")
def add(item: int) -> list:
    state.append(item)
    return state

@rpc.dispatcher("/api")
def part() -> str:
    return parts.Part().name()

@app.get("/number")
def numbered():
    return str(number)

@app.get("/only/{number}")
def only():
    return "here"
"""
    + WAIT
)

PARTS = """
class Part:
    def name(self):
        return "part {number}"
"""


def write(site, number, more=""):
    site.write("parts.py", PARTS.format(number=number))
    site.rewrite(BODY.replace("{number}", str(number)) + more)


def release(service, *numbers, more=""):
    for number in numbers:
        write(service, number, more)
        service.rpc.reload()


def served(service):
    """The number in the code that answers: by a dispatcher, by a view, by a module, and by a URL of its own."""
    number = service.call("which")
    with service.client().get("/number") as response:
        assert response.get_data(as_text=True) == str(number)
    with service.client().get(f"/only/{number}") as response:
        assert response.status_code == 200
    assert service.call("part") == f"part {number}"
    return number


def page(service, url):
    with service.client().get(url) as response:
        return response.status_code, response.get_data(as_text=True)
