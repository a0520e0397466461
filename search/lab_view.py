"""Where the search is seen: MLflow's address, and links that open on the answer.

MLflow's page opens folded, with no perplexity and no text in sight. A *shared view*, which its
"share" button writes as a tag of the experiment, opens it unfolded, sorted and with the columns
that matter. Its form is MLflow's own business and not documented; were it to change, the link
would open the plain page.
"""

import base64
import json
import os
import shlex
import zlib
from dataclasses import dataclass
from pathlib import Path

from search.config import PARAMS

KIND = {"mlflow.experimentKind": "custom_model_development"}  # not the page for chat traces
UI_PORT = 5000  # where `mlflow ui` listens unless told otherwise


def tracking_uri(configured: str | None, root: Path) -> str:
    """The config's, else MLFLOW_TRACKING_URI, else a database in the root folder."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(root)


def default_uri(root: Path) -> str:
    """Where `mlflow ui` without flags looks, when it is started in the root folder."""
    return f"sqlite:///{root / 'mlflow.db'}"


def ui_command(uri: str, root: Path) -> str:
    """The command that opens MLflow on what a search wrote; of a server, its address."""
    if uri.startswith("http"):
        return uri
    if uri == default_uri(root):
        folder = "" if root == Path.cwd() else f"cd {shlex.quote(str(root))} && "
        return f"{folder}mlflow ui --workers 1"
    return f"mlflow ui --workers 1 --backend-store-uri {shlex.quote(uri)}"


def view_tag(search_id: str, parent_id: str, metric: str) -> tuple[str, str]:
    """The experiment's tag, key and value, that holds the view of one search."""
    columns = [f"metrics.`{metric}`"]
    columns += [f"params.`{name}`" for name in PARAMS]
    columns += [f"tags.`{name}`" for name in ("trial_state", "sample_text")]
    state = {
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": True,
        "searchFilter": "",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "runsExpanded": {parent_id: True},
        "runsPinned": [],
        "runsHidden": [],
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return f"mlflow.sharedViewState.{search_id}", f"deflate;{packed}"


@dataclass(frozen=True)
class Links:
    """Addresses in MLflow. table: the trials, best first. charts: their learning curves."""

    table: str
    charts: str


def links(uri: str, experiment_id: str, search_id: str) -> Links:
    """The links of a search; of a local store, as `mlflow ui` serves it."""
    address = uri.rstrip("/") if uri.startswith("http") else f"http://127.0.0.1:{UI_PORT}"
    page = f"{address}/#/experiments/{experiment_id}/runs?viewStateShareKey={search_id}"
    return Links(f"{page}&compareRunsMode=TABLE", f"{page}&compareRunsMode=CHART")
