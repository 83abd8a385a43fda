"""Writes small datasets to a disk in every layout, and damages them."""

import io
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import original_files
from PIL import Image

import data

IDX = "t10k-{}-ubyte.gz"
IMAGES, LABELS = IDX.format("images-idx3"), IDX.format("labels-idx1")
ANNOTATIONS = "val/val_annotations.txt"
BINARY, PICKLES = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
BINARY_100, PICKLES_100 = "cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"
TINY, ZIP = "tiny-imagenet-200", "tiny-imagenet-200.zip"


def write_arrays(folder, name="cifar10"):
    rows = [array for split in ("train", "test") for array in original_files.rows(split, (32, 32, 3))]
    data.cache.write(folder / "arrays.npz", data.make_dataset(*rows))


def write_zip(home):
    original_files.write_tiny_imagenet(home / TINY)
    shutil.make_archive(home / TINY, "zip", home, TINY)
    shutil.rmtree(home / TINY)


def archive(name, file):
    return name, lambda home: original_files.write_cifar(home / file, name)


# The dataset of every layout, and what writes it into the dataset's folder.
LAYOUTS = {
    "mnist": ("mnist", original_files.write_idx),
    BINARY: archive("cifar10", BINARY),
    PICKLES: archive("cifar10", PICKLES),
    BINARY_100: archive("cifar100", BINARY_100),
    PICKLES_100: archive("cifar100", PICKLES_100),
    "tiny": ("tiny_imagenet", lambda home: original_files.write_tiny_imagenet(home / TINY)),
    "tiny.zip": ("tiny_imagenet", write_zip),
    "classes": ("cifar10", original_files.write_classes),
    "arrays": ("cifar10", write_arrays),
}


# What follows returns functions that damage the dataset in a folder.
def half(file):
    return on(file, lambda content: content[: len(content) // 2])


def cut(file, length=-300):
    return on(file, lambda content: content[:length])


def flip(file, at):
    """Changes a bit of the byte at an index, or at a fraction of the length."""

    def change(content):
        content = bytearray(content)
        content[int(at * len(content)) if isinstance(at, float) else at] ^= 0x10
        return bytes(content)

    return on(file, change)


def on(file, change):
    def damage(home):
        path = home / file
        path.write_bytes(change(path.read_bytes()))

    return damage


def replaced(file, old, new):
    return on(file, lambda content: content.replace(old, new))


def text(file, content):
    return lambda home: (home / file).write_text(content)


def remove(file):
    return lambda home: shutil.rmtree(home / file) if (home / file).is_dir() else (home / file).unlink()


def idx(file, change, split="test"):
    """Writes other rows to a file of MNIST."""

    def damage(home):
        images, labels = original_files.rows(split, (28, 28))
        original_files.write_idx_array(home / file, change(images if "images" in file else labels))

    return damage


def member(file, name, content):
    """Replaces an archive by one with a single file."""

    def damage(home):
        with tarfile.open(home / file, "w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

    return damage


def pickled(**changes):
    """Replaces values in CIFAR-100's pickle of training images."""
    batch = {
        "data": np.zeros((9, 3072), np.uint8),
        "fine_labels": original_files.rows("train", (1,))[1].tolist(),
    }
    return a_pickle({name.encode(): value for name, value in (batch | changes).items()})


def a_pickle(content):
    return raw_pickle(pickle.dumps(content, protocol=3))


def raw_pickle(content):
    return member(PICKLES_100, "cifar-100-python/train", content)


def picture(file, format, size=(32, 32), mode="RGB"):
    return lambda home: Image.new(mode, size).save(home / next_file(home, file), format=format)


def next_file(home, pattern):
    return sorted(home.glob(pattern))[0]


def png_header(pattern, width, height):
    """Writes a PNG file whose header states this size, with next to no pixels."""

    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return lambda home: next_file(home, pattern).write_bytes(content)


def arrays(**changes):
    """Replaces arrays in the file of a prepared dataset, or removes them (`None`)."""

    def damage(home):
        with np.load(home / "arrays.npz") as file:
            named = dict(file)
        for name, change in changes.items():
            if change is None:
                del named[name]
            else:
                named[name] = change(named[name]) if callable(change) else change
        np.savez(home / "arrays.npz", **named)

    return damage


def one_array(home):
    with (home / "arrays.npz").open("wb") as file:
        np.save(file, np.zeros(3))


def a_folder(file):
    def damage(home):
        (home / file).unlink()
        (home / file).mkdir()

    return damage


def lzma_zip(home):
    with zipfile.ZipFile(home / ZIP) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(home / ZIP, "w", zipfile.ZIP_LZMA) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
        place = archive.getinfo(f"{TINY}/wnids.txt").header_offset
    flip(ZIP, place + 70)(home)


def fourth_class(home):
    for split in ("train", "test"):
        (home / split / "dog").mkdir()
        shutil.copy(next_file(home, f"{split}/cat/*"), home / split / "dog" / "1.png")


def class_twice(home):
    (home / "train" / "more" / "cat").mkdir(parents=True)
    next_file(home, "train/cat/*").rename(home / "train" / "more" / "cat" / "x.png")


def sixteen_bits(home):
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(next_file(home, "train/cat/*"), "png")


HARM = b"cposix\nmkdir\n(S'harm'\ntR."
WNIDS, VALIDATION = f"{TINY}/wnids.txt", f"{TINY}/val/images/val_1.JPEG"
TINY_ANNOTATIONS = f"{TINY}/{ANNOTATIONS}"
