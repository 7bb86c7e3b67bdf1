"""What the command `gemstones prescribe` is about: a study or none, one of its laws or a law's file, and recorded speeds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from gemstones import laws
from gemstones.cluster.config import read
from gemstones.errors import UserError
from gemstones.faults import choices
from gemstones.laws.choice import candidates, form, read_choice
from gemstones.laws.fit import HuberFit
from gemstones.laws.resampling import names_of
from gemstones.laws.uncertainty import Uncertainty
from gemstones.losses import table
from gemstones.losses.selections import select
from gemstones.prescriptions.run_curves import checkpoints_of
from gemstones.prescriptions.speeds import Speeds, speeds_of
from gemstones.prescriptions.study import fitted_speeds
from gemstones.study import Recipe, Study, Suite

CONFIGS = Path("config")


@dataclass(frozen=True)
class Source:
    """A law with all that is known beside it; without a study, what all studies have by default.

    Attributes
    ----------
    name : of the law, as messages have it: of the fit, or a law's file.
    config, study : of the study, where there is one.
    fitted : whether the law is one of the study's own.
    rows : all checkpoints of the runs that the law was fitted to, where they are known.
    choice : which of the study's fits predicts unseen runs best (:mod:`gemstones.laws.choice`), where that is known.
    """

    name: str
    law: HuberFit
    uncertainty: Uncertainty | None
    speeds: Speeds | None
    config: Path | None = None
    study: Study | None = None
    fitted: bool = False
    rows: pd.DataFrame | None = None
    choice: Mapping[str, Any] | None = None

    @property
    def suite(self) -> Suite:
        return self.study.suite if self.study else Suite()

    @property
    def tokens_per_step(self) -> int:
        recipe = self.study.recipe if self.study else Recipe()
        return recipe.batch_size * self.suite.context_length


def find(law: str | None, config: Path | None, study: str | None, results: Path, nodes: int | None) -> Source:
    """The law that is asked for.

    Parameters
    ----------
    law : a fit of the study, or a law's JSON; by default the one that the study's comparison has chosen or, without a comparison,
        the first of the study's prescriptions with width and depth.
    config, study : which study, by its file or by its name; by default that of config/config.yaml, but none for a law's JSON.
    results : folder of all studies' results.
    nodes : that GPU-hours assume, for the study's.

    Raises
    ------
    UserError
        If there is no such study or law, the law is not there yet or not of the kind that prescribes, or the table beside it is
        not of its resamples.
    """
    if config and study:
        raise UserError("--config and --study: name the study once")
    if study:
        config = _config_of(study)
    path = Path(law) if law and (law.endswith(".json") or Path(law).is_file()) else None
    known = read(config or CONFIGS / "config.yaml") if config or not path else None
    choice = _choice(known, results, config or CONFIGS / "config.yaml", needed=law is None) if known else None
    fitted = path is None or (known is not None and path.resolve().parent == (results / known.study / "laws").resolve())
    if path:
        if nodes and known is None:
            raise UserError(f"--nodes: {path} has no speeds; name the study that recorded them: --config or --study")
        name, fit = path.stem if fitted else str(path), laws.read(path)
    else:
        assert known is not None
        config = config or CONFIGS / "config.yaml"
        name = _fit_name(known, law, config, choice)
        path = results / known.study / "laws" / f"{name}.json"
        for needed in (path, path.with_suffix(".parquet")):
            if not needed.is_file():
                raise UserError(f"{needed}: not found; `snakemake -c2 {path} --configfile {config}` makes it")
        fit = laws.read(path)
    if not isinstance(fit, HuberFit):
        raise UserError(f"{path}: lines through a convex hull; wanted: a fit of approach 3")
    resamples = path.with_suffix(".parquet")
    level = known.bootstrap.level if known else fit.evidence.get("intervals", {}).get("level", 0.95)
    drawn = _resamples(resamples, fit) if resamples.is_file() else pd.DataFrame()
    uncertainty = None if drawn.empty else Uncertainty(fit, drawn, level)
    losses = _losses(known, results) if known else None
    speeds = _speeds(known, name, losses, nodes) if known else None
    rows = None
    if known and losses is not None and fitted and name in known.fits:
        selection = known.fits[name].selection
        rows = checkpoints_of(select(losses, known.selections[selection], selection), losses)
    return Source(name, fit, uncertainty, speeds, config, known, fitted, rows, choice)


def _resamples(path: Path, fit: HuberFit) -> pd.DataFrame:
    """The table beside a law, which must be of laws with its covariates."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not read: {str(error).splitlines()[0]}; remove it, or make the law again") from None
    if set(table.columns) != (wanted := {"unit", *names_of(fit)}):
        differ = ", ".join(sorted(set(table.columns) ^ wanted)[:3])
        raise UserError(f"{path}: not of the law beside it ({differ}); wanted: columns {', '.join(sorted(wanted))}")
    if text := [name for name in names_of(fit) if not pd.api.types.is_numeric_dtype(table[name])]:
        raise UserError(f"{path}: column '{text[0]}' holds no numbers; make the law again")
    return table


def _config_of(study: str) -> Path:
    """The one config of a study in the folder; files that cannot be read are passed over."""
    found: dict[str, list[Path]] = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        with suppress(yaml.YAMLError, UnicodeDecodeError):
            content = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            if isinstance(content, dict) and "study" in content:
                found.setdefault(str(content["study"]), []).append(path)
    if study not in found:
        raise UserError(f"--study: no config of '{study}' in {CONFIGS}/; {choices(study, list(found))}")
    if len(found[study]) > 1:
        files = ", ".join(map(str, found[study]))
        raise UserError(
            f"--study: {files} are all of study '{study}'; name one by --config, and give copies a name of their own"
        )
    return found[study][0]


def _choice(study: Study, results: Path, config: Path, needed: bool) -> dict[str, Any] | None:
    """What the study's comparison has chosen; None without a comparison, or where nothing needs it and it cannot be used."""
    path = results / study.study / "laws" / "choice.json"
    if not candidates(study):
        return None
    make = f"`snakemake -c2 {path} --configfile {config}` makes it"
    try:
        if not path.is_file():
            raise UserError(f"{path}: not found; {make}, or name a fit by --law")
        choice = read_choice(path)
        told = {row["fit"]: form(str(row["law"]).split(", ")) for row in choice["candidates"]}
        forms = {name: form(terms) for name, terms in candidates(study).items()}
        if choice["selection"] != study.comparisons[0] or told != forms:
            raise UserError(f"{path}: was made for other fits than those of {config}; {make} again")
    except UserError:
        if needed:
            raise
        return None
    return {**choice, "fit": study.prescriptions.main or choice["fit"]}


def _fit_name(study: Study, law: str | None, config: Path, choice: Mapping[str, Any] | None) -> str:
    if law is None and choice:
        law = str(choice["fit"])
    if law is None:
        if study.main_fit is None:
            raise UserError(f"{config}: prescriptions.fits: none; name a fit or a law's JSON by --law")
        return study.main_fit
    able = [name for name, fit in study.fits.items() if fit.approach == 3 and "tokens" in fit.factors]
    if law not in able:
        raise UserError(f"--law: '{law}' is no fit of approach 3 with tokens in {config}; {choices(law, able)}")
    return law


def _losses(study: Study, results: Path) -> pd.DataFrame | None:
    path = results / study.study / "losses" / "losses.parquet"
    return table.read(path) if path.is_file() else None


def _speeds(study: Study, name: str, losses: pd.DataFrame | None, nodes: int | None) -> Speeds | None:
    """As the runs recorded them, or else as the plan has them."""
    if losses is None:
        return speeds_of(study, nodes=nodes)
    if name in study.fits:
        return fitted_speeds(study, name, losses, nodes)
    return speeds_of(study, losses, nodes=nodes)
