"""The one kind of error that is the user's to mend: it is shown as a single line, without a traceback."""


class UserError(Exception):
    """A mistake in a config, a data file or a command; the message names the file, key or row and what would be right."""

    told = False  # whether another process of the same job says it already
