"""An edit of what a figure is drawn with draws it again: rules name the modules of the package that they follow."""

import ast
from pathlib import Path

import pytest

from gemstones.figures.kinds import KINDS
from tests.conftest import ROOT, config_of, copy_project
from tests.dag import dry_run

# Messages, types of the config, how bytes are written: no figure changes by them. What inputs reads is written by other rules.
EXCEPTIONS = {"errors", "study", "files"}
LEAVES = {"figures/inputs"}


def imported(module: str) -> set[str]:
    """Modules of the package that one names directly."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / f"gemstones/{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gemstones"):
            base = Path(*node.module.split(".")[1:])
            for name in node.names:
                submodule = (ROOT / "gemstones" / base / f"{name.name}.py").exists()
                package = (ROOT / "gemstones" / base / "__init__.py").exists()
                found.add(str(base / name.name if submodule else base / "__init__" if package else base))
    return found - EXCEPTIONS


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Modules among the inputs of each kind of figure."""
    project = copy_project(tmp_path_factory.mktemp("fresh") / "project")
    found = {}
    for study in ("released", "simulation"):
        figures = config_of(study)["figures"]
        for job in dry_run(project, f"config/{study}.yaml", ("figures",)):
            if job.rule == "figure":
                modules = {path.removeprefix("gemstones/").removesuffix(".py") for path in job.input}
                found[figures[job.wildcards["figure"]]["kind"]] = modules
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_follows_what_it_is_drawn_with(kind: str, followed: dict[str, set[str]]) -> None:
    used = imported(f"figures/{kind}")
    for module in sorted(used - LEAVES):
        if module.startswith("figures/"):
            used |= imported(module)
    assert used <= followed[kind]
