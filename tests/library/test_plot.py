"""Tests `rotation_scalars` and `plot_rotation`."""

import json
import sys

import jax
import matplotlib.image
import numpy as np
import optax
import pytest

from layca_optax import layca, rotation_report, rotation_scalars, track_rotation
from layca_optax.plot import layer_colors, plot_rotation

PARAMS = {
    "blocks": {"kernel": jax.random.normal(jax.random.key(0), (2, 3, 4))},
    "head": jax.random.normal(jax.random.key(1), (3, 2)),
}


def rotate(path, leaf):
    return (0,) if path.startswith("blocks") else ()


def trained(steps=3, rate=0.1, rotate=rotate, params=PARAMS):
    optimizer = optax.chain(layca(rate, rotate=rotate), track_rotation(rotate=rotate))
    state, history = optimizer.init(params), {}
    for step in range(1, steps + 1):
        gradients = jax.tree.map(
            lambda w, step=step: jax.random.normal(jax.random.key(step), w.shape), params
        )
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        history[step] = rotation_report(state)
    return state, history


def test_scalars_are_floats_by_name_and_stacks_are_split():
    state, history = trained()
    scalars = rotation_scalars(state, prefix="turned")
    report = history[3]
    for measure in ("from_init", "last_step", "norm"):
        assert scalars.pop(f"turned/head/{measure}") == report["head"][measure]
        for block in (0, 1):
            name = f"turned/blocks/kernel/{block}/{measure}"
            assert type(scalars[name]) is float
            assert scalars.pop(name) == report["blocks/kernel"][measure][block]
    assert scalars == {}
    assert json.loads(json.dumps(rotation_scalars(state))) == rotation_scalars(state)


def test_scalars_can_be_returned_by_a_step_under_jit():
    state, _ = trained()
    inside = jax.jit(rotation_scalars)(state)
    assert {name: float(value) for name, value in inside.items()} == rotation_scalars(state)
    assert all(value.shape == () for value in inside.values())


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_two_axes_show_one_line_per_vector_with_the_reported_values():
    _, history = trained()
    upper, lower = plot_rotation(history, xlabel="epoch").axes
    for axes, measure in ((upper, "last_step"), (lower, "from_init")):
        expected = {
            f"blocks/kernel/{i}": [r["blocks/kernel"][measure][i] for r in history.values()] for i in (0, 1)
        }
        expected["head"] = [report["head"][measure] for report in history.values()]
        assert list(lines(axes)) == list(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(lines(axes)[name], np.column_stack([list(history), values]))
        # The axes fit: the largest value is near the top.
        assert axes.get_ylim()[0] == 0
        assert 0.8 < np.max([*expected.values()]) / axes.get_ylim()[1] <= 1
    assert lower.get_xlabel() == "epoch"


def test_a_notebook_shows_the_figure_and_counts_steps_in_whole_numbers():
    _, history = trained()
    figure = plot_rotation(history)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert all(tick == round(tick) for tick in figure.axes[1].get_xticks())


def test_many_vectors_are_a_median_and_a_band():
    params = {"kernel": jax.random.normal(jax.random.key(0), (4, 40))}
    _, history = trained(params=params, rotate="neuron")
    _, lower = plot_rotation(history).axes
    distances = np.array([report["kernel"]["from_init"] for report in history.values()])
    np.testing.assert_allclose(lines(lower)["kernel"][:, 1], np.median(distances, axis=1))
    (band,) = lower.collections
    heights = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [distances.min(), distances.max()])


def test_layers_that_come_later_and_vectors_that_are_zero_leave_gaps(tmp_path):
    measured = {"from_init": 0.5, "last_step": 0.1, "norm": 1.0}
    several = {"from_init": np.full(40, np.nan), "last_step": np.full(40, np.nan), "norm": np.zeros(40)}
    history = {2: {"new": measured, "zero": several}, 1: {"zero": several}}
    figure = plot_rotation(history)
    np.testing.assert_array_equal(lines(figure.axes[1])["new"], [[1, np.nan], [2, 0.5]])
    figure.savefig(tmp_path / "rotation.png")
    assert matplotlib.image.imread(tmp_path / "rotation.png").std() > 0


def test_the_colors_are_viridis_from_the_first_layer_to_the_last():
    assert layer_colors(3) == ["#440154", "#21918c", "#fde725"]
    assert layer_colors(1) == ["#440154"]


def report(layers, angle=lambda i: 0.1):
    return {f"layers/{i}": {"from_init": 0.5, "last_step": angle(i), "norm": 1.0} for i in range(layers)}


def test_many_layers_have_a_scale_that_names_ten_of_them():
    figure = plot_rotation({1: report(30)})
    assert len(figure.legends[0].get_texts()) == 30
    figure = plot_rotation({1: report(100)})
    assert figure.legends == []
    names = [label.get_text() for label in figure.axes[-1].get_yticklabels()]
    assert names == [f"layers/{i}" for i in range(0, 100, 11)]


def test_it_says_where_one_line_hides_the_others():
    title = lambda history: plot_rotation(history).axes[0].get_title(loc="right")
    assert title({1: report(3), 2: report(3, lambda i: 0.2 + 1e-4 * i)}) == "all lines coincide"
    assert title({1: report(3), 2: report(3, lambda i: 0.2 + 0.01 * i)}) == ""
    assert title({1: report(1)}) == ""
    # Before the first step all angles are zero.
    assert title({0: report(3, lambda i: 0.0)}) == ""
    assert title({1: report(3, lambda i: float("nan") if i else 0.1)}) == ""


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({}, "this is empty"),
        ([{"kernel": 1.0}], "this is list"),
        ({3: {"kernel": 1.0}}, "what it has at 3 is no report"),
        ({3: 0.1}, "what it has at 3 is no report"),
    ],
)
def test_an_argument_that_is_no_history_is_refused(history, message):
    with pytest.raises(ValueError, match=rf"history\[step\] = rotation_report\(state\); {message}"):
        plot_rotation(history)


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "layca_optax.plot")
    with pytest.raises(ImportError, match=r'pip install "layca-optax\[plot\]"'):
        import layca_optax.plot  # noqa: F401
