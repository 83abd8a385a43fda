"""Holds what train.py needs: settings, tasks, optimizers, the step, devices, processes, files of a run."""
