"""Figure 1b: while only the first layer trains, its feedback becomes more correlated with the classes.

SGD at a rate of 1 takes 500 epochs of one step. The figure shows the Silhouette coefficient (by class, cosine
metric) of the gradient of the loss with respect to the first layer's output. The paper and preset `paper`
measure it on 5,000 test images after every epoch, `laptop` on 1,000 images after every tenth.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import silhouette_score

from experiments import toy
from experiments.claims import Claim, Finding
from experiments.curves import panel
from experiments.experiment import Experiment
from experiments.results import Results, spread
from experiments.runs import rounded

# Epochs between two measurements, and test images.
MEASUREMENTS = {"laptop": (10, 1000), "paper": (1, 5000)}


@dataclass(frozen=True)
class Feedback:
    """A run that trains the first layer and measures its feedback on test images."""

    data: str
    seed: int
    every: int
    test_images: int
    epochs: int = 500
    learning_rate: float = 1.0

    def fields(self) -> dict[str, Any]:
        return {"program": "feedback", **asdict(self)}

    def task(self) -> str:
        return toy.TASK

    def estimate(self) -> float:
        return 15

    def program(self) -> tuple[Any, ...]:
        return ("feedback",)

    def execute(self, data_dir: str | None) -> dict[str, Any]:
        inputs, labels, test_inputs, test_labels = toy.arrays(self.data, self.seed, data_dir)
        test_inputs, test_labels = test_inputs[: self.test_images], test_labels[: self.test_images]
        kernel, *behind = kernels = toy.initial_kernels(self.seed)
        problem = toy.make_problem(kernels, inputs, labels, frozen=False)
        gradients, found = jnp.zeros_like(problem.initial), []
        for epoch in range(0, self.epochs + 1, self.every):
            outputs = test_inputs @ kernel - self.learning_rate * (test_inputs @ inputs.T) @ gradients
            seen = np.asarray(feedback(behind, outputs, test_labels))
            found.append(rounded(float(silhouette_score(seen, test_labels, metric="cosine"))))
            if epoch < self.epochs:
                gradients = steps(problem, gradients, self.learning_rate, self.every)
        return {"silhouette": found, **toy.source(self.data, data_dir)}

    def trace(self) -> None:
        problem = toy.shapes(layer=0, frozen=False)
        jax.eval_shape(partial(steps, rho=self.learning_rate, number=self.every), problem, problem.initial)


@jax.jit
def feedback(behind: list[jax.Array], outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the gradient of each image's loss with respect to the layer's output after its ReLU."""

    def loss(after_relu: jax.Array) -> jax.Array:
        log_softmax = jax.nn.log_softmax(toy.logits(behind[1:], after_relu @ behind[0]))
        return -jnp.sum(jnp.take_along_axis(log_softmax, labels[:, None], axis=1))

    return jax.grad(loss)(jax.nn.relu(outputs))


@partial(jax.jit, static_argnames=("rho", "number"))
def steps(problem: toy.Problem, gradients: jax.Array, rho: float, number: int) -> jax.Array:
    return jax.lax.fori_loop(
        0, number, lambda _, gradients: toy.descend(problem, gradients, rho)[0], gradients
    )


def runs(preset: str) -> list[Feedback]:
    return [Feedback(toy.DATA[preset], seed, *MEASUREMENTS[preset]) for seed in toy.SEEDS]


def draw(preset: str, results: Results) -> Figure:
    found = np.array([results.of(run)["silhouette"] for run in runs(preset)])
    figure, axis = panel()
    epochs = np.arange(found.shape[1]) * MEASUREMENTS[preset][0]
    axis.plot(epochs, found.mean(axis=0))
    axis.fill_between(epochs, found.min(axis=0), found.max(axis=0), alpha=0.2)
    axis.set(xlabel="epoch", ylabel="Silhouette coefficient", ylim=(0, None))
    axis.margins(x=0)
    return figure


def climbs(preset: str, results: Results) -> Finding:
    ((first,), (last,)) = (
        results.paired([runs(preset)], lambda line, i=i: line["silhouette"][i]) for i in (0, -1)
    )
    return Finding(f"from {spread(first)} to {spread(last)}", {"climb": last - first})


def claims(preset: str) -> list[Claim]:
    text = "Training the first layer alone improves its feedback (Silhouette)"
    return [Claim(text, "from about .05 to about .3", partial(climbs, preset))]


FIG1B = Experiment("fig1b", log="fig1b", runs=runs, draw=draw, claims=claims, presets=toy.PRESETS)
