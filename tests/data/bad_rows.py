"""Damages of small datasets, each with its layout and what is said of it."""

import gzip
import struct

import numpy as np
from damage import (
    ANNOTATIONS,
    BINARY,
    HARM,
    IMAGES,
    LABELS,
    PICKLES,
    TINY_ANNOTATIONS,
    VALIDATION,
    a_folder,
    arrays,
    class_twice,
    cut,
    flip,
    fourth_class,
    idx,
    lzma_zip,
    member,
    next_file,
    on,
    one_array,
    pickled,
    picture,
    png_header,
    raw_pickle,
    remove,
    sixteen_bits,
    text,
)

ROWS = [
    # IDX files
    ("mnist", cut(IMAGES), rf"{IMAGES} cannot be read: Compressed file ended"),
    ("mnist", cut(LABELS, 20), rf"{LABELS} cannot be read: Compressed file ended"),
    ("mnist", flip(IMAGES, 0.5), rf"{IMAGES} cannot be read"),
    ("mnist", flip(LABELS, -6), rf"{LABELS} cannot be read: CRC check failed"),
    ("mnist", text(IMAGES, "<html>404</html>"), rf"{IMAGES} cannot be read: Not a gzipped file"),
    ("mnist", text(LABELS, ""), rf"{LABELS} cannot be read"),
    ("mnist", a_folder(LABELS), rf"{LABELS} cannot be read: Is a directory"),
    (
        "mnist",
        idx(IMAGES, lambda rows: np.zeros(100, np.uint8)),
        rf"{IMAGES} .* its magic number is 2049, not 2051",
    ),
    ("mnist", idx(IMAGES, lambda rows: np.zeros((4, 32, 32), np.uint8)), rf"{IMAGES} .* \(4, 32, 32, 1\)"),
    (
        "mnist",
        idx(LABELS, lambda rows: rows[:3]),
        rf"{LABELS} should hold test labels of MNIST of shape \(4,\)",
    ),
    (
        "mnist",
        idx(IMAGES, lambda rows: rows[:3]),
        rf"{IMAGES} should hold test images .* holds \(3, 28, 28, 1\)",
    ),
    (
        "mnist",
        idx(LABELS, lambda rows: rows + 1),
        rf"{LABELS} is not the test split of MNIST.* of class 0, not 0",
    ),
    ("mnist", idx(LABELS, lambda rows: rows + 253), rf"{LABELS} is not the test split of MNIST"),
    ("mnist", idx(LABELS, lambda rows: 0 * rows), rf"{LABELS} .* has 1 images of class 0, not 4"),
    # Archives
    *[
        (file, damage(file), rf"{file} cannot be read")
        for file in (BINARY, PICKLES, "cifar-100-binary.tar.gz", "cifar-100-python.tar.gz")
        for damage in (
            lambda file: on(file, lambda content: content[: len(content) // 2]),
            lambda file: flip(file, -12),
            lambda file: flip(file, -6),
            lambda file: text(file, "<html>404</html>"),
            lambda file: text(file, ""),
            lambda file: on(file, lambda content: gzip.compress(b"no tar archive" * 100)),
        )
    ],
    (BINARY, member(BINARY, "cifar-10-batches-bin/test_batch.bin", b""), r"data_batch_1\.bin' not found"),
    (
        "cifar-100-binary.tar.gz",
        member("cifar-100-binary.tar.gz", "cifar-100-binary/train.bin", bytes(3000)),
        r"cifar-100-binary\.tar\.gz cannot be read: cannot reshape",
    ),
    (
        "cifar-100-binary.tar.gz",
        member("cifar-100-binary.tar.gz", "cifar-100-binary/train.bin", bytes(8 * 3074)),
        r"cifar-100-binary\.tar\.gz should hold train images of CIFAR-100 of shape \(9, .* \(8, 32, 32, 3\)",
    ),
    # Pickles
    *[
        ("cifar-100-python.tar.gz", damage, rf"cifar-100-python\.tar\.gz .*{message}")
        for damage, message in (
            (pickled(lambda batch: list(batch)), "cannot be read: list indices must be integers"),
            (pickled(lambda batch: None), "cannot be read"),
            (pickled(lambda batch: {}), "cannot be read: b'fine_labels'"),
            (pickled(lambda batch: batch | {b"data": [1]}), r"cannot be read: its data should"),
            (pickled(lambda batch: batch | {b"data": 5}), "cannot be read"),
            (
                pickled(lambda batch: batch | {b"data": batch[b"data"].reshape(-1, 32, 32, 3)}),
                r"cannot be read: its data should have the shape \(n, 3072\), not \(9, 32, 32, 3\)",
            ),
            (
                pickled(lambda batch: batch | {b"data": batch[b"data"].astype(float)}),
                "cannot be read: its data should be uint8, not float64",
            ),
            (pickled(lambda batch: batch | {b"data": batch[b"data"].astype(object)}), "not object"),
            (pickled(lambda batch: batch | {b"fine_labels": [0] * 8}), r"should hold train labels .* \(8,\)"),
            (
                pickled(lambda batch: batch | {b"fine_labels": [0.5] * 9}),
                "labels .* integer, but holds .*float64",
            ),
            (pickled(lambda batch: batch | {b"fine_labels": ["a"] * 9}), "labels .* integer, but holds"),
            (pickled(lambda batch: batch | {b"fine_labels": [[0]] * 9}), r"but holds \(9, 1\)"),
            (pickled(lambda batch: batch | {b"fine_labels": [{}] * 9}), "but holds .* object"),
            (
                pickled(lambda batch: batch | {b"fine_labels": [-1] * 9}),
                "is not the train split of CIFAR-100",
            ),
            (pickled(lambda batch: batch | {b"fine_labels": [2**70] * 9}), "but holds .* object"),
            (raw_pickle(HARM), r"cannot be read: it holds posix\.mkdir"),
            (raw_pickle(b"ceval\neval\n(S'1'\ntR."), "cannot be read: it holds"),
            # Of a few bytes, and what they ask for.
            (raw_pickle(b"\x80\x02}r\xff\xff\xff\x0f."), "cannot be read"),
            (raw_pickle(b"\x80\x03B\xff\xff\xff\x1f."), "cannot be read"),
            (raw_pickle(b"\x80\x05\x96" + struct.pack("<Q", 2**31) + b"."), "cannot be read"),
            (raw_pickle(b"cnumpy\nndarray\n(I2147483648\ntR."), "cannot be read"),
            (raw_pickle(b""), "cannot be read"),
        )
    ],
    # Tiny ImageNet
    *[
        (layout, damage, rf"tiny-imagenet-200/.*{message}")
        for layout in ["tiny"]
        for damage, message in (
            (remove("tiny-imagenet-200/wnids.txt"), r"wnids\.txt cannot be read: No such file"),
            (text("tiny-imagenet-200/wnids.txt", "n01\nn02\n"), r"wnids\.txt names 2 classes, not 3"),
            (text("tiny-imagenet-200/wnids.txt", "n01\nn02\nn02\n"), r"wnids\.txt names 2 classes, not 3"),
            (remove("tiny-imagenet-200/train/n02"), r"train/n02/images/n02_\d\.JPEG cannot be read: No such"),
            (
                remove("tiny-imagenet-200/train/n01/images/n01_1.JPEG"),
                r"n01/images/n01_1\.JPEG cannot be read",
            ),
            (remove(TINY_ANNOTATIONS), rf"{ANNOTATIONS} cannot be read: No such file"),
            (
                text(TINY_ANNOTATIONS, "val_0.JPEG\tn07\t0\n"),
                rf"{ANNOTATIONS} gives val_0.JPEG the class 'n07'",
            ),
            (text(TINY_ANNOTATIONS, "val_0.JPEG\n"), rf"{ANNOTATIONS} gives val_0.JPEG the class ''"),
            (text(TINY_ANNOTATIONS, "val_0.JPEG\tn01\n"), rf"{ANNOTATIONS} should hold test images .* \(4,"),
            (
                on(TINY_ANNOTATIONS, lambda rows: rows.replace(b"val_1.", b"val_0.")),
                rf"{ANNOTATIONS} lists val_0.JPEG twice",
            ),
            (
                on(TINY_ANNOTATIONS, lambda rows: b"\xff" + rows),
                r"val_0\.JPEG cannot be read: No such file",
            ),
            (
                on(TINY_ANNOTATIONS, lambda rows: rows.replace(b"n02", b"n01")),
                "is not the test split of Tiny",
            ),
            (remove(VALIDATION), r"val/images/val_1\.JPEG cannot be read: No such file"),
            (cut(VALIDATION, 700), r"val/images/val_1\.JPEG cannot be read: .*truncated"),
            (cut(VALIDATION, 0), r"val/images/val_1\.JPEG is no JPEG file"),
            (picture(VALIDATION, "JPEG", (63, 64)), r"val_1\.JPEG has 63 x 64 pixels, not 64 x 64"),
            (picture(VALIDATION, "EPS", (64, 64)), r"val_1\.JPEG is no JPEG file"),
            (picture(VALIDATION, "PNG", (64, 64)), r"val_1\.JPEG is no JPEG file"),
            (picture(VALIDATION, "TIFF", (64, 64)), r"val_1\.JPEG is no JPEG file"),
        )
    ],
    ("tiny.zip", lzma_zip, r"tiny-imagenet-200\.zip/wnids\.txt cannot be read"),
    (
        "tiny.zip",
        flip("tiny-imagenet-200.zip", 0.5),
        r"tiny-imagenet-200\.zip/.*JPEG cannot be read: Bad CRC",
    ),
    (
        "tiny.zip",
        cut("tiny-imagenet-200.zip", 5000),
        r"tiny-imagenet-200\.zip cannot be read: File is not a zip",
    ),
    (
        "tiny.zip",
        text("tiny-imagenet-200.zip", ""),
        r"tiny-imagenet-200\.zip cannot be read: File is not a zip",
    ),
    (
        "tiny.zip",
        on("tiny-imagenet-200.zip", lambda content: content.replace(b"wnids.txt", b"WNIDS.txt")),
        r"tiny-imagenet-200\.zip/wnids\.txt cannot be read: .*no item named",
    ),
    # Class folders
    ("classes", remove("test"), r"cifar10/test is missing: class folders need train"),
    ("classes", remove("train"), r"cifar10/train is missing"),
    (
        "classes",
        remove("test/cat"),
        r"cifar10/test holds pictures in 2 class folders; CIFAR-10 has 3 classes",
    ),
    ("classes", lambda home: (home / "test/cat").rename(home / "test/dog"), r"in one split only: cat, dog"),
    ("classes", fourth_class, r"cifar10/train holds pictures in 4 class folders; CIFAR-10 has 3 classes"),
    (
        "classes",
        lambda home: next_file(home, "train/cat/*").unlink(),
        r"folder cat of .*cifar10/train holds 3 pictures; CIFAR-10 has 4 of that class in its train",
    ),
    (
        "classes",
        lambda home: cut(next_file(home, "train/bird/*"))(home),
        r"train/bird/\d\.png cannot be read",
    ),
    ("classes", sixteen_bits, r"train/cat/\d\.png has 16 bits per channel; pictures must have 8"),
    (
        "classes",
        lambda home: next_file(home, "test/cat/*").write_bytes(b"<html>404</html>"),
        r"test/cat/\d\.png is no PNG file",
    ),
    ("classes", picture("test/cat/*", "PNG", (33, 32)), r"test/cat/\d\.png has 33 x 32 pixels, not 32 x 32"),
    ("classes", picture("test/cat/*", "JPEG"), r"test/cat/\d\.png is no PNG file"),
    (
        "classes",
        picture("train/airplane/*", "GIF", mode="L"),
        r"train/airplane/\d\.png is no PNG or JPEG file",
    ),
    ("classes", picture("train/airplane/*", "EPS"), r"train/airplane/\d\.png is no PNG or JPEG file"),
    (
        "classes",
        png_header("test/cat/*", 9000, 9000),
        r"test/cat/\d\.png has 9000 x 9000 pixels, not 32 x 32",
    ),
    ("classes", png_header("test/cat/*", 30_000, 30_000), r"test/cat/\d\.png cannot be read: Image size"),
    ("classes", png_header("test/cat/*", 32, 32), r"test/cat/\d\.png cannot be read"),
    (
        "classes",
        lambda home: next_file(home, "train/cat/*").rename(home / "train" / "stray.png"),
        r"train/stray\.png is in no class folder",
    ),
    ("classes", class_twice, r"train/cat and .*train/more/cat are folders of the same class"),
    # The file of a prepared dataset
    *[
        ("arrays", damage, rf"cifar10/arrays\.npz .*{message}")
        for damage, message in (
            (
                on("arrays.npz", lambda content: content[: len(content) // 2]),
                "cannot be read: File is not a zip",
            ),
            (text("arrays.npz", ""), "cannot be read: No data left in file"),
            (text("arrays.npz", "not an archive" * 100), "cannot be read"),
            (flip("arrays.npz", 5000), "cannot be read: Bad CRC"),
            (flip("arrays.npz", 30_000), "cannot be read: Bad CRC"),
            (one_array, "cannot be read: it holds one array"),
            (a_folder("arrays.npz"), "cannot be read: Is a directory"),
            (arrays(mean=None), "cannot be read: .*mean"),
            (arrays(mean=np.array([None])), "cannot be read: Object arrays cannot be loaded"),
            (arrays(std=np.float32(0)), r"cannot be read: .* above 0, but are .* and 0\.0"),
            (arrays(std=np.float32(-1)), r"cannot be read: .* and -1\.0"),
            (arrays(mean=np.float32(np.nan)), "cannot be read: .* should be finite, .* are nan"),
            (arrays(std=np.float32(np.inf)), "cannot be read: .* should be finite, .* and inf"),
            (arrays(mean=np.complex64(1j)), "should each be one float32"),
            (arrays(std=np.ones(5, np.float32)), "should each be one float32"),
            (arrays(mean=np.array("0.5")), "should each be one float32"),
            (arrays(source=np.array("{")), "cannot be read"),
            (arrays(source=np.array('{"colour": "red"}')), "cannot be read: .*colour"),
            (arrays(source=np.array("[1]")), "cannot be read"),
            (arrays(test_labels=lambda labels: labels - 1), "is not the test split of CIFAR-10"),
            (arrays(test_labels=lambda labels: labels * 0), "is not the test split of CIFAR-10"),
            (
                arrays(test_labels=lambda labels: labels + np.int64(2**40)),
                "is not the test split of CIFAR-10",
            ),
            (arrays(train_labels=lambda labels: labels / 2), r"train labels .*\(9,\) integer, .* float64"),
            (arrays(train_labels=lambda labels: labels[:, None]), r"train labels .*but holds \(9, 1\) int32"),
            (arrays(test_labels=lambda labels: labels.astype(str)), r"test labels .*but holds \(4,\) <U"),
            (arrays(test_labels=lambda labels: labels > 0), r"test labels .*but holds \(4,\) bool"),
            (arrays(test_labels=np.int32(0)), r"test labels .*but holds \(\) int32"),
            (arrays(test_labels=lambda labels: labels[:3]), r"test labels .*but holds \(3,\)"),
            (arrays(test_images=lambda images: images[:3]), r"test images .*but holds \(3, 32, 32, 3\)"),
            (arrays(train_images=lambda images: images / 255), r"train images .*uint8, but holds .* float64"),
            (arrays(train_images=lambda images: images.astype(np.int32)), "uint8, but holds .* int32"),
        )
    ],
]
