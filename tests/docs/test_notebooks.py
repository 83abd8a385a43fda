"""The notebooks are committed as executed, are small, and run again without complaints."""

import ast
import os

import nbformat
import pages
import pytest
from nbclient import NotebookClient

import layca_optax

NOTEBOOKS = {path.name: path for path in sorted(pages.ROOT.glob("notebooks/*.ipynb"))}
MAX_BYTES = 400_000


def read(path):
    """Reads a notebook and validates it; a cell without an id is an error, too."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def complaints(notebook):
    """Returns errors and what was printed to stderr."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def unknown_names(notebook):
    """Returns the names that a notebook takes from `layca_optax` and that are not public."""
    taken = set()
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and node.module == "layca_optax":
                taken |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module.startswith("layca_optax."):
                taken.add(node.module.removeprefix("layca_optax."))
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "layca_optax":
                taken.add(node.attr)
    return taken - {*layca_optax.__all__, "plot"}


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_as_executed_from_top_to_bottom(name):
    notebook = read(NOTEBOOKS[name])
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)
    assert complaints(notebook) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_small_and_without_traces_of_a_machine(name):
    assert NOTEBOOKS[name].stat().st_size < MAX_BYTES
    notebook = read(NOTEBOOKS[name])
    assert [cell.id for cell in notebook.cells if cell.metadata] == []  # times of execution, among others
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert not any(line.lstrip().startswith(("!", "%")) for line in cell.source.splitlines())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_names_and_links_lead_somewhere(name):
    assert unknown_names(read(NOTEBOOKS[name])) == set()
    assert pages.broken_links(NOTEBOOKS[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs(name, monkeypatch):
    notebook = read(NOTEBOOKS[name])
    # The kernel is a separate process, which neither pytest's settings nor conftest.py reach.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pages.ROOT), os.environ.get("PYTHONPATH", "")]))
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(pages.ROOT)}})
    client.execute()
    assert complaints(notebook) == []


def cell(source, *outputs):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs))


def test_complaints_are_noticed():
    output = nbformat.v4.new_output
    loud = [output("stream", name="stderr", text="W"), output("error", ename="E", evalue="", traceback=[])]
    quiet = [output("stream", name="stdout", text="1"), output("display_data", data={"text/plain": "2"})]
    notebook = nbformat.v4.new_notebook(cells=[cell("1", *quiet), cell("2", *loud)])
    assert complaints(notebook) == loud


def test_names_that_do_not_exist_are_noticed():
    sources = "import layca_optax\nlayca_optax.nobody", "from layca_optax import layca, laica"
    assert unknown_names(nbformat.v4.new_notebook(cells=list(map(cell, sources)))) == {"nobody", "laica"}
