"""tensorflow-datasets' builders of these datasets, without TensorFlow. Import this late: it takes its time.

The builders that come with tensorflow-datasets read the original files with TensorFlow. These differ in that
alone; what they prepare is the same, in the same folders.
"""

import abc
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.file_adapters import FileFormat
from tensorflow_datasets.image_classification import cifar, mnist
from tqdm import tqdm

from data.archives import read_cifar, read_idx
from data.catalog import Entry, check_dataset, check_labels, find_entry
from data.dataset import DataError, Dataset, make_dataset
from data.files import not_available
from data.tiny_imagenet import SIZE, read_images

# By default ten, which take 205 seconds without a network.
vars(downloader)["MAX_RETRIES"] = 0

Example = tuple[Any, dict[str, Any]]


class _FromFiles(abc.ABC):
    """Makes examples of the original files: those of `sources`, and if there are none, downloaded ones."""

    sources: Mapping[str, Path] = MappingProxyType({})
    name: ClassVar[str]

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Example]]:
        entry = find_entry(self.name)
        files = self.sources or dl_manager.download(dict(zip(entry.files, entry.urls, strict=True)))
        return {split: self._examples(split, files) for split in ("train", "test")}

    @abc.abstractmethod
    def _examples(self, split: str, files: Mapping[str, Path]) -> Iterator[Example]:
        """The examples of a split."""


class _MNIST(_FromFiles):
    def _examples(self, split: str, files: Mapping[str, Path]) -> Iterator[Example]:
        images, labels, path = read_idx(files, split)
        check_labels(self.name, split, labels, path)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": Image.fromarray(image[..., 0]), "label": int(label)}


class MNIST(_MNIST, mnist.MNIST, skip_registration=True):
    name = "mnist"


class FashionMNIST(_MNIST, mnist.FashionMNIST, skip_registration=True):
    name = "fashion_mnist"


class _Cifar(_FromFiles):
    def _examples(self, split: str, files: Mapping[str, Path]) -> Iterator[Example]:
        images, labels, path = read_cifar(self.name, files, split)
        check_labels(self.name, split, labels[:, -1], path)
        keys = ["coarse_label", "label"][-labels.shape[1] :]
        for i, (image, values) in enumerate(zip(images, labels, strict=True)):
            named = dict(zip(keys, map(int, values), strict=True))
            yield i, {"id": f"{split}_{i:05d}", "image": Image.fromarray(image), **named}


class Cifar10(_Cifar, cifar.Cifar10, skip_registration=True):
    name = "cifar10"


class Cifar100(_Cifar, cifar.Cifar100, skip_registration=True):
    name = "cifar100"


class TinyImagenet(_FromFiles, tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Tiny ImageNet; its split `test` is the validation folder, which has labels."""

    name = "tiny_imagenet"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="200 classes of ImageNet at 64 x 64 pixels, 500 training and 50 test images each.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3)),
                    "label": tfds.features.ClassLabel(num_classes=len(find_entry(self.name).train_counts)),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu",
        )

    def _generate_examples(self, split: str, files: Mapping[str, Path]) -> Iterator[Example]:
        (path,) = files.values()
        labels = []
        for key, image, label in read_images(path, split):
            labels.append(label)
            yield key, {"image": image, "label": label}
        check_labels(self.name, split, np.array(labels), path)

    _examples = _generate_examples


BUILDERS = {builder.name: builder for builder in (MNIST, FashionMNIST, Cifar10, Cifar100, TinyImagenet)}


def prepare(name: str, folder: Path, sources: Mapping[str, Path]) -> Dataset:
    """Has tensorflow-datasets prepare a dataset below `folder`, unless it is there already, and reads it.

    Args:
      name: a key of `BUILDERS`.
      folder: where tensorflow-datasets keeps its datasets.
      sources: the original files by name; if there are none, they are downloaded.

    Raises:
      DataError: the dataset cannot be had, or something of it is damaged.
    """
    try:
        builder = BUILDERS[name](data_dir=folder)
        if builder.is_prepared() and builder.info.file_format is not FileFormat.ARRAY_RECORD:
            # What TensorFlow has prepared, TensorFlow alone can read.
            builder = BUILDERS[name](data_dir=folder / "array_record")
    except Exception as error:
        raise _damaged(folder / name, error) from error
    builder.sources = sources
    try:
        builder.download_and_prepare(
            download_dir=folder / "downloads",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            file_format=FileFormat.ARRAY_RECORD,
        )
    except DataError:
        raise
    except Exception as error:
        raise not_available(name, folder, str(error)) from error
    try:
        train, test = (_read(builder.as_data_source(split), find_entry(name)) for split in ("train", "test"))
    except Exception as error:
        raise _damaged(builder.data_path, error) from error
    data = make_dataset(*train, *test)
    check_dataset(name, data, builder.data_path)
    return data


def _read(source: Sequence[Any], entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(source), *entry.image_shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    # Indices, since tensorflow-datasets' mock is no iterator.
    for i in tqdm(range(len(source)), desc="Reading examples", disable=None):
        example = source[i]
        images[i], labels[i] = example["image"], example["label"]
    return images, labels


def _damaged(path: os.PathLike[str], error: Exception) -> DataError:
    return DataError(
        f"what tensorflow-datasets prepared in {path} is damaged ({error}). It was left as it is and not"
        " used; move it away."
    )
