"""`gemstones …` called in tests."""

from typer.testing import CliRunner

from gemstones.cli import app


def run(command: str, *arguments: object, code: int = 0) -> tuple[str, str]:
    """Standard output and error of a command."""
    done = CliRunner().invoke(app, [command, *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def refused(command: str, *arguments: object) -> str:
    """The one line of an error, on which nothing is printed."""
    out, err = run(command, *arguments, code=1)
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    return err.removeprefix("error: ").strip()
