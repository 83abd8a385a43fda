"""Figure 7: the learning rate of SGD, chosen among ten for alpha = 0.

The paper chose on the test images of CIFAR-10 and CIFAR-100; here a tenth of the training images is held out.
The winner is the task's own learning rate (`training/tasks.py`), and serves all alpha in Figure 2.
"""

from training.config import Config, Flags

RATES = [3.0**i for i in range(-7, 3)]
# Not among the seeds of Figure 2.
SEED = 10


def runs(tasks: list[str]) -> list[Config]:
    """One run a task and rate."""
    return [
        Flags(task=task, layca=False, learning_rate=rate, seed=SEED, validation=True).resolved()
        for task in tasks
        for rate in RATES
    ]
