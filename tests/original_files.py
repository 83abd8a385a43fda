"""Writes small files in the formats in which datasets are published."""

import gzip
import io
import pickle
import struct
import tarfile
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from data import catalog

COUNTS = {"train": (3, 2, 4), "test": (1, 2, 1)}
CLASSES = ("airplane", "bird", "cat")


def shrink(monkeypatch, *names):
    """Gives datasets as many images per class as `COUNTS` says, and no files of the operating system."""
    entries = {
        name: entry._replace(train_counts=COUNTS["train"], test_counts=COUNTS["test"], system_folder=None)
        for name, entry in catalog.CATALOG.items()
        if name in names
    }
    monkeypatch.setattr(catalog, "CATALOG", {**catalog.CATALOG, **entries})


def rows(split, shape):
    """Returns random images, and labels as `COUNTS` says."""
    rng = np.random.default_rng(len(split))
    labels = rng.permutation(np.repeat(np.arange(3), COUNTS[split])).astype(np.uint8)
    return rng.integers(0, 256, (len(labels), *shape), np.uint8), labels


def write_idx(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    for split, part in (("train", "train"), ("test", "t10k")):
        images, labels = rows(split, (28, 28))
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            write_idx_array(folder / f"{part}-{kind}-ubyte.gz", array)


def write_idx_array(path: Path, array: np.ndarray):
    header = struct.pack(f">{1 + array.ndim}i", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_cifar(path: Path, name: str):
    """Writes a binary or a pickled archive, depending on its name; CIFAR-100's coarse labels are 7."""
    path.parent.mkdir(parents=True, exist_ok=True)
    binary = "binary" in path.name
    folder = path.name.removesuffix(".tar.gz")
    if name == "cifar10":
        folder = f"cifar-10-batches-{'bin' if binary else 'py'}"
    with tarfile.open(path, "w:gz") as archive:
        for split in ("train", "test"):
            images, labels = rows(split, (32, 32, 3))
            planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
            if name == "cifar100":
                parts = {split: slice(None)}
            elif split == "test":
                parts = {"test_batch": slice(None)}
            else:
                size = -(-len(labels) // 5)
                parts = {f"data_batch_{i + 1}": slice(size * i, size * (i + 1)) for i in (4, 3, 2, 1, 0)}
            for part, where in parts.items():
                content = _binary(name, labels[where], planes[where])
                if not binary:
                    content = _pickled(name, labels[where], planes[where])
                member = tarfile.TarInfo(f"{folder}/{part}{'.bin' if binary else ''}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def _binary(name, labels, planes):
    columns = [np.full_like(labels, 7)[:, None]] if name == "cifar100" else []
    return np.concatenate([*columns, labels[:, None], planes], axis=1).tobytes()


def _pickled(name, labels, planes):
    keys = {b"fine_labels": labels, b"coarse_labels": np.full_like(labels, 7)}
    if name == "cifar10":
        keys = {b"labels": labels}
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(
        {b"data": planes, **{key: value.tolist() for key, value in keys.items()}}
    )
    return buffer.getvalue()


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, which is how CIFAR's archives came to be."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    dispatch[bytes] = save_bytes


def write_classes(folder: Path, suffix="png", shape=(32, 32, 3), **options):
    """Writes class folders; returns images and labels of each split in the order of class and name."""
    written = {}
    for split in COUNTS:
        images, labels = rows(split, shape)
        order = np.argsort(labels, kind="stable")
        written[split] = images[order], labels[order]
        for i, (image, label) in enumerate(zip(*written[split], strict=True)):
            place = folder / split / CLASSES[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.squeeze()).save(place / f"{i:04d}.{suffix}", **options)
    return written


def write_tiny_imagenet(folder: Path):
    """Writes three classes; the first image of every folder is grey. Returns the decoded images by split."""
    wnids = ["n03", "n01", "n02"]
    decoded = {"train": [], "test": []}
    (folder / "val").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    annotations = []
    for split in ("train", "test"):
        images, labels = rows(split, (64, 64, 3))
        seen = Counter()
        for image, label in zip(images, labels, strict=True):
            wnid = wnids[label]
            place = folder / "val" / "images" if split == "test" else folder / "train" / wnid / "images"
            place.mkdir(parents=True, exist_ok=True)
            i = seen[place]
            seen[place] += 1
            picture = Image.fromarray(image).convert("RGB" if i else "L")
            file = place / (f"val_{i}.JPEG" if split == "test" else f"{wnid}_{i}.JPEG")
            picture.save(file, "jpeg")
            with Image.open(file) as written:
                decoded[split].append((np.asarray(written.convert("RGB")), int(label)))
            if split == "test":
                annotations.append(f"{file.name}\t{wnid}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    return decoded
