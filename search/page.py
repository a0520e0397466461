"""The report as one HTML file: template, style, script, plotly.js and the search's data in it.

Nothing in it comes from a network, and nothing that a corpus, a name or a model wrote is run: the
data is JSON that the script shows as text, and the page's own policy lets only the two scripts
run that were put in here, known by their digests, with no `eval` and no connection anywhere.
"""

import base64
import hashlib
import html
import json
import math
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from search.config import PARAMS
from search.figures import figures
from search.pictures import TITLES, Scene
from search.study import SearchStudy, count_states
from search.view import printable
from search.wall import best_row, wall

TEMPLATE = Path(__file__).parent / "template"


def page(study: SearchStudy, scene: Scene) -> str:
    """The whole file, about 5 MB, nearly all of it plotly.js."""
    script = (TEMPLATE / "report.js").read_text("utf-8")
    parts = {
        "policy": _policy(plotly_js(), script),
        "title": html.escape(study.name),
        "style": (TEMPLATE / "report.css").read_text("utf-8"),
        "data": as_json(page_data(study, scene)),
        "plotly": plotly_js(),
        "script": script,
    }
    template = (TEMPLATE / "report.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def page_data(study: SearchStudy, scene: Scene) -> dict[str, Any]:
    """All that the page shows of a search, in plain values."""
    drawn = figures(scene)
    return {
        "search": study.name,
        "metric": scene.metric,
        "params": PARAMS,
        "prefix": study.config.train.prefix,
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "done": study.is_done(),
        "wanted": study.config.search.trials,
        "corpus": study.attrs.get("corpus"),
        "counts": count_states(study.trials()),
        "winner": _winner(scene),
        "pictures": [
            {
                "key": key,
                "title": title,
                "caption": caption,
                "figures": drawn.get(key, []),
                "left_out": scene.left_out.get(key, ""),
            }
            for key, (title, caption) in TITLES.items()
        ],
        "wall": wall(scene, study.config),
        "config": study.config.dump(),
        "command": study.attrs.get("command", ""),
        "versions": study.attrs.get("versions", {}),
    }


def as_json(value: Any) -> str:
    """JSON that can stand between script tags: no `<`, and none of the numbers JSON lacks."""
    text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


@cache
def plotly_js() -> str:
    """plotly.js, from the plotly package."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    return str(get_plotlyjs())


def _policy(*scripts: str) -> str:
    """What the page may do: run these scripts, style itself, show images it made."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    sources = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _winner(scene: Scene) -> dict[str, Any] | None:
    best = scene.best
    if best is None or not scene.rows[best.number]:
        return None
    row = best_row(scene.rows[best.number], scene.metric)
    return {
        "number": best.number,
        "epoch": row["epoch"],
        "value": row[scene.metric],
        "params": best.params,
        "text": printable(row["sample_text"]),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
