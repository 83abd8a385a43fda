"""Lists damages of small datasets: the layout, the damage, and what the message says."""

import gzip
import struct

import numpy as np
from damage import (
    ANNOTATIONS,
    BINARY,
    BINARY_100,
    HARM,
    IMAGES,
    LABELS,
    PICKLES,
    PICKLES_100,
    TINY,
    TINY_ANNOTATIONS,
    VALIDATION,
    WNIDS,
    ZIP,
    a_folder,
    a_pickle,
    arrays,
    class_twice,
    cut,
    flip,
    fourth_class,
    half,
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
    replaced,
    sixteen_bits,
    text,
)

ROWS = [
    # IDX files
    *[
        ("mnist", damage, message)
        for damage, message in (
            (cut(IMAGES), rf"{IMAGES} cannot be read: Compressed file ended"),
            (cut(LABELS, 20), rf"{LABELS} cannot be read: Compressed file ended"),
            (flip(IMAGES, 0.5), rf"{IMAGES} cannot be read"),
            (flip(LABELS, -6), rf"{LABELS} cannot be read: CRC check failed"),
            (text(IMAGES, "<html>404</html>"), rf"{IMAGES} cannot be read: Not a gzipped file"),
            (text(LABELS, ""), rf"{LABELS} cannot be read"),
            (a_folder(LABELS), rf"{LABELS} cannot be read: Is a directory"),
            (idx(IMAGES, lambda rows: rows[0, 0]), rf"{IMAGES} .* its magic number is 2049, not 2051"),
            (idx(IMAGES, lambda rows: np.zeros((4, 32, 32), np.uint8)), rf"{IMAGES} .* \(4, 32, 32, 1\)"),
            (
                idx(LABELS, lambda rows: rows[:3]),
                rf"{LABELS} should hold test labels of MNIST of shape \(4,\)",
            ),
            (idx(IMAGES, lambda rows: rows[:3]), rf"{IMAGES} should hold test images .* \(3, 28, 28, 1\)"),
            (idx(LABELS, lambda rows: rows + 1), rf"{LABELS} is not the test split of MNIST.* 0, not 0"),
            (idx(LABELS, lambda rows: rows + 253), rf"{LABELS} is not the test split of MNIST"),
            (idx(LABELS, lambda rows: 0 * rows), rf"{LABELS} .* has 1 images of class 0, not 4"),
        )
    ],
    # Archives
    *[
        (file, damage(file), rf"{file} cannot be read")
        for file in (BINARY, PICKLES, BINARY_100, PICKLES_100)
        for damage in (
            half,
            lambda file: flip(file, -12),
            lambda file: flip(file, -6),
            lambda file: text(file, "<html>404</html>"),
            lambda file: text(file, ""),
            lambda file: on(file, lambda content: gzip.compress(b"no tar archive" * 100)),
        )
    ],
    (BINARY, member(BINARY, "cifar-10-batches-bin/test_batch.bin", b""), r"data_batch_1\.bin' not found"),
    *[
        (
            BINARY_100,
            member(BINARY_100, "cifar-100-binary/train.bin", bytes(size)),
            rf"{BINARY_100} {message}",
        )
        for size, message in (
            (3000, "cannot be read: cannot reshape"),
            (8 * 3074, r"should hold train images of CIFAR-100 of shape \(9, .* \(8, 32, 32, 3\)"),
        )
    ],
    # Pickles
    *[
        (PICKLES_100, damage, rf"{PICKLES_100} .*{message}")
        for damage, message in (
            (a_pickle([b"data", b"fine_labels"]), "cannot be read: list indices must be integers"),
            (a_pickle(None), "cannot be read"),
            (a_pickle({}), "cannot be read: b'fine_labels'"),
            (pickled(data=[1]), "cannot be read: its data should"),
            (pickled(data=5), "cannot be read"),
            (
                pickled(data=np.zeros((9, 32, 32, 3), np.uint8)),
                r"cannot be read: its data should have the shape \(n, 3072\), not \(9, 32, 32, 3\)",
            ),
            (pickled(data=np.zeros((9, 3072))), "cannot be read: its data should be uint8, not float64"),
            (pickled(data=np.zeros((9, 3072), object)), "not object"),
            (pickled(fine_labels=[0] * 8), r"should hold train labels .* \(8,\)"),
            (pickled(fine_labels=[0.5] * 9), "labels .* integer, but holds .*float64"),
            (pickled(fine_labels=["a"] * 9), "labels .* integer, but holds"),
            (pickled(fine_labels=[[0]] * 9), r"but holds \(9, 1\)"),
            (pickled(fine_labels=[{}] * 9), "but holds .* object"),
            (pickled(fine_labels=[-1] * 9), "is not the train split of CIFAR-100"),
            (pickled(fine_labels=[2**70] * 9), "but holds .* object"),
            (raw_pickle(HARM), r"cannot be read: it holds posix\.mkdir"),
            (raw_pickle(b"ceval\neval\n(S'1'\ntR."), "cannot be read: it holds"),
            # Few bytes that ask for much memory.
            (raw_pickle(b"\x80\x02}r\xff\xff\xff\x0f."), "cannot be read"),
            (raw_pickle(b"\x80\x03B\xff\xff\xff\x1f."), "cannot be read"),
            (raw_pickle(b"\x80\x05\x96" + struct.pack("<Q", 2**31) + b"."), "cannot be read"),
            (raw_pickle(b"cnumpy\nndarray\n(I2147483648\ntR."), "cannot be read"),
            (raw_pickle(b""), "cannot be read"),
        )
    ],
    # Tiny ImageNet
    *[
        ("tiny", damage, rf"{TINY}/.*{message}")
        for damage, message in (
            (remove(WNIDS), r"wnids\.txt cannot be read: No such file"),
            (text(WNIDS, "n01\nn02\n"), r"wnids\.txt names 2 classes, not 3"),
            (text(WNIDS, "n01\nn02\nn02\n"), r"wnids\.txt names 2 classes, not 3"),
            (remove(f"{TINY}/train/n02"), r"train/n02/images/n02_\d\.JPEG cannot be read: No such"),
            (remove(f"{TINY}/train/n01/images/n01_1.JPEG"), r"n01/images/n01_1\.JPEG cannot be read"),
            (remove(TINY_ANNOTATIONS), rf"{ANNOTATIONS} cannot be read: No such file"),
            (
                text(TINY_ANNOTATIONS, "val_0.JPEG\tn07\t0\n"),
                rf"{ANNOTATIONS} gives val_0.JPEG the class 'n07'",
            ),
            (text(TINY_ANNOTATIONS, "val_0.JPEG\n"), rf"{ANNOTATIONS} gives val_0.JPEG the class ''"),
            (text(TINY_ANNOTATIONS, "val_0.JPEG\tn01\n"), rf"{ANNOTATIONS} should hold test images .* \(4,"),
            (replaced(TINY_ANNOTATIONS, b"val_1.", b"val_0."), rf"{ANNOTATIONS} lists val_0.JPEG twice"),
            (on(TINY_ANNOTATIONS, lambda rows: b"\xff" + rows), r"val_0\.JPEG cannot be read: No such file"),
            (replaced(TINY_ANNOTATIONS, b"n02", b"n01"), "is not the test split of Tiny"),
            (remove(VALIDATION), r"val/images/val_1\.JPEG cannot be read: No such file"),
            (cut(VALIDATION, 700), r"val/images/val_1\.JPEG cannot be read: .*truncated"),
            (cut(VALIDATION, 0), r"val/images/val_1\.JPEG is no JPEG file"),
            (picture(VALIDATION, "JPEG", (63, 64)), r"val_1\.JPEG has 63 x 64 pixels, not 64 x 64"),
            (picture(VALIDATION, "EPS", (64, 64)), r"val_1\.JPEG is no JPEG file"),
            (picture(VALIDATION, "PNG", (64, 64)), r"val_1\.JPEG is no JPEG file"),
            (picture(VALIDATION, "TIFF", (64, 64)), r"val_1\.JPEG is no JPEG file"),
        )
    ],
    *[
        ("tiny.zip", damage, rf"{ZIP}{message}")
        for damage, message in (
            (lzma_zip, r"/wnids\.txt cannot be read"),
            (flip(ZIP, 0.5), "/.*JPEG cannot be read: Bad CRC"),
            (cut(ZIP, 5000), " cannot be read: File is not a zip"),
            (text(ZIP, ""), " cannot be read: File is not a zip"),
            (replaced(ZIP, b"wnids.txt", b"WNIDS.txt"), r"/wnids\.txt cannot be read: .*no item named"),
        )
    ],
    # Class folders
    *[
        ("classes", damage, message)
        for damage, message in (
            (remove("test"), r"cifar10/test is missing: class folders need train"),
            (remove("train"), r"cifar10/train is missing"),
            (remove("test/cat"), "cifar10/test holds pictures in 2 class folders; CIFAR-10 has 3 classes"),
            (lambda home: (home / "test/cat").rename(home / "test/dog"), "in one split only: cat, dog"),
            (fourth_class, "cifar10/train holds pictures in 4 class folders; CIFAR-10 has 3 classes"),
            (
                lambda home: next_file(home, "train/cat/*").unlink(),
                "folder cat of .*cifar10/train holds 3 pictures; CIFAR-10 has 4 of that class in its train",
            ),
            (lambda home: cut(next_file(home, "train/bird/*"))(home), r"train/bird/\d+\.png cannot be read"),
            (sixteen_bits, r"train/cat/\d+\.png has 16 bits per channel; pictures must have 8"),
            (
                lambda home: next_file(home, "test/cat/*").write_bytes(b"<html>404</html>"),
                r"test/cat/\d+\.png is no PNG file",
            ),
            (picture("test/cat/*", "PNG", (33, 32)), r"test/cat/\d+\.png has 33 x 32 pixels, not 32 x 32"),
            (picture("test/cat/*", "JPEG"), r"test/cat/\d+\.png is no PNG file"),
            (picture("train/airplane/*", "GIF", mode="L"), r"train/airplane/\d+\.png is no PNG or JPEG file"),
            (picture("train/airplane/*", "EPS"), r"train/airplane/\d+\.png is no PNG or JPEG file"),
            (png_header("test/cat/*", 9000, 9000), r"\d+\.png has 9000 x 9000 pixels, not 32 x 32"),
            (png_header("test/cat/*", 30_000, 30_000), r"test/cat/\d+\.png cannot be read: Image size"),
            (png_header("test/cat/*", 32, 32), r"test/cat/\d+\.png cannot be read"),
            (
                lambda home: next_file(home, "train/cat/*").rename(home / "train" / "stray.png"),
                r"train/stray\.png is in no class folder",
            ),
            (class_twice, "train/cat and .*train/more/cat are folders of the same class"),
        )
    ],
    # The file of a prepared dataset
    *[
        ("arrays", damage, rf"cifar10/arrays\.npz .*{message}")
        for damage, message in (
            (half("arrays.npz"), "cannot be read: File is not a zip"),
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
