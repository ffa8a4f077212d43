"""The notebooks of the docs run whole, on recordings made for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.guests import reference_guest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
SECONDS = 900


@pytest.fixture(scope="module")
def place(tmp_path_factory, probe):
    """Where they leave their recordings, which they share."""
    try:
        reference_guest()
    except EnvironmentLacks as error:
        pytest.skip(error.what)
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_every_cell_says_something(path, place):
    nbformat = pytest.importorskip("nbformat", reason="the extra `notebooks` is not installed")
    client = pytest.importorskip("nbclient", reason="the extra `notebooks` is not installed")
    notebook = nbformat.read(path, as_version=4)
    shown = [len(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    where = {"metadata": {"path": str(place)}}
    client.NotebookClient(notebook, timeout=SECONDS, resources=where).execute()  # raises errors
    ran = [len(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert ran == shown
    assert sum(ran) > 5
