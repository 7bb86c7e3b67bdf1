"""Tables on narrow terminals."""

from rich.console import Console
from rich.table import Table

from gemstones.cluster.narrow import narrowed


def printed(width: int) -> list[str]:
    table = Table()
    for head in ("run", "step", "loss", "hours"):
        table.add_column(head)
    table.add_row("256x23", "83475", "2.101", "1234567")
    console = Console(width=width, record=True)
    console.print(narrowed(table, console, ("loss", "hours")))
    return console.export_text().splitlines()


def test_whole_columns_are_left_out_and_no_number_is_cut() -> None:
    for width, heads in ((80, ["run", "step", "loss", "hours"]), (32, ["run", "step", "hours"]), (22, ["run", "step"])):
        lines = printed(width)
        assert max(map(len, lines)) <= width
        assert lines[1].replace("┃", " ").split() == heads
        cells = dict(zip(heads, lines[3].replace("│", " ").split(), strict=True))
        assert cells.items() <= {"run": "256x23", "step": "83475", "loss": "2.101", "hours": "1234567"}.items()
