"""Make a search's report again, from its study alone: python search/report.py --name NAME

The report is one HTML file that needs no network, and the pictures as PNG files beside it. It can
be made while the search runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.command import run_command

if TYPE_CHECKING:
    from search.study import SearchStudy

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
REPORT = "report.html"


@app.command()
def report(
    name: Annotated[
        str | None, typer.Option(help="The search's name. Default: the latest one.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where runs/ lies. Default: the current folder.")
    ] = None,
) -> None:
    """Make the report of a search, and print where it lies."""
    from search.folders import search_folder
    from search.study import read_study

    folder = search_folder((root or Path.cwd()).absolute(), name, resume=True)
    study = read_study(folder)
    try:
        typer.echo(write_report(study, folder / "report")[0])
    finally:
        study.close()


def write_report(study: "SearchStudy", folder: Path, stills: bool = True) -> list[Path]:
    """Write `report.html` and, with `stills`, a PNG of each picture; give their paths.

    Each file is whole at any time: written beside its place, then put there. Stills take most of
    the time (matplotlib's), so a search that runs leaves them out. Raises OSError.
    """
    from search.page import page
    from search.pictures import Scene

    folder.mkdir(parents=True, exist_ok=True)
    scene = Scene(study)
    paths = [_put(folder / REPORT, page(study, scene).encode())]
    if stills:
        from search import stills as drawn

        for key, png in drawn.stills(scene):
            paths.append(_put(folder / f"{key}.png", png))
    return paths


def _put(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    return temporary.replace(path)


if __name__ == "__main__":
    run_command(app)
