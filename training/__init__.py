"""What train.py needs beside it: tasks, optimizers, the command line's settings, files of a run."""
