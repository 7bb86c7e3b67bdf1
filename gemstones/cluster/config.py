"""The study that a command is about, from its config file."""

from __future__ import annotations

from pathlib import Path

import yaml

from gemstones.errors import UserError
from gemstones.study import Study, load


def read(path: Path, trains: bool = False) -> Study:
    """A checked study; raises UserError if the file is not there, is not YAML, or has faults, one line each.

    Parameters
    ----------
    trains : whether it has to train something.
    """
    try:
        content = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; wanted: a study's config, such as config/config.yaml") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: no valid YAML: {getattr(error, 'problem', None) or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: no text in UTF-8, so no YAML") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: wanted: a study's config, such as config/config.yaml")
    study = load(content, str(path))
    if trains and study.runs is None:
        raise UserError(f"{path}: runs: the study trains nothing")
    return study
