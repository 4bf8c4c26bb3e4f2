"""What ``scripts/bench compare`` measures, who takes part, and what must be shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Peer:
    """One way to load images.

    Attributes:
        title: as people read it.
        module: below ``scripts/benchmarks/peers``.
        group: peers that are two ways of using one library; the better one counts.
        variant: what its module is told.
        requires: packages of its environment; empty takes the repository's own.
        shares: the module whose environment it runs in, with the same packages; empty for its own.
        needs: what the system must have to build those.
        note: what to know about its figures.
    """

    title: str
    module: str
    group: str = ""
    variant: str = ""
    requires: tuple[str, ...] = ()
    shares: str = ""
    needs: str = ""
    note: str = ""

    @property
    def environment(self) -> str:
        """The name of its environment; empty is the repository's own."""
        return (self.shares or self.module) if self.requires else ""


@dataclass(frozen=True)
class Workload:
    """One comparison.

    Attributes:
        title: as people read it.
        ours: the peer that the others are compared with.
        others: in the order of the turns.
        task: fields of ``peers.protocol.Task``.
        photos: ``small``, ``large`` or ``many``: which images.
        left_out: peers that could not be compared, and why.
    """

    title: str
    others: tuple[str, ...]
    task: dict[str, Any] = field(default_factory=dict)
    ours: str = "loaderd"
    photos: str = "small"
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Must:
    """A ratio that loaderd has to reach against a peer or a group of them."""

    workload: str
    against: str
    least: float


_TENSORFLOW = ("tensorflow-cpu", "keras>=3.15", "pillow", "scipy")
_DALI = ("nvidia-dali-cuda120", "numpy")
TORCH = "torch==2.13.*"  # a release whose build for CPUs installs by this name where it is offered
TORCHVISION = ("torch==2.14.1", "torchvision==0.29.1")

PEERS = {
    "loaderd": Peer("loaderd", "ours"),
    "floor": Peer(
        "bare render functions",
        "bare",
        note="loaderd's own functions in as many processes as CPUs, "
        "without daemon, ring and trainer; cached: sample by sample",
    ),
    "keras-threads": Peer(
        "Keras ImageDataGenerator, threads",
        "keras_idg",
        group="Keras ImageDataGenerator",
        variant="threads",
        requires=_TENSORFLOW,
        note="keeps no decoded images",
    ),
    "keras-processes": Peer(
        "Keras ImageDataGenerator, processes",
        "keras_idg",
        group="Keras ImageDataGenerator",
        variant="processes",
        requires=_TENSORFLOW,
        note="keeps no decoded images; forks its pool anew each epoch",
    ),
    "tfdata": Peer(
        "tf.data",
        "tfdata",
        requires=_TENSORFLOW,
        note="image_dataset_from_directory, which does not antialias, and Keras's layers; "
        "cached: .cache() of images, .shuffle() of all, .batch(), then the layers "
        "(a cache of batches would be faster, and give the same batches in every epoch)",
    ),
    "tfdata-antialias": Peer(
        "tf.data, antialiased",
        "tfdata",
        variant="antialias",
        requires=_TENSORFLOW,
        note="tf.image.resize(antialias=True)",
    ),
    "grain-threads": Peer(
        "Grain, threads",
        "grain_keras",
        group="Grain",
        variant="threads",
        requires=("keras>=3.15", "jax", "grain", "pillow"),
        note="image_dataset_from_directory(format='grain') and Keras's layers on JAX",
    ),
    "grain-processes": Peer(
        "Grain, processes",
        "grain_keras",
        group="Grain",
        variant="processes",
        requires=("keras>=3.15", "jax", "grain", "pillow"),
        note="the same with mp_prefetch, which starts its processes anew each epoch",
    ),
    "torch": Peer(
        "PyTorch DataLoader, OpenCV",
        "torch_opencv",
        requires=(TORCH, "opencv-python-headless", "numpy"),
        note="shrinks with INTER_AREA; photos: IMREAD_REDUCED_COLOR_8; "
        "cached: decoded images in memory",
    ),
    "dali": Peer(
        "NVIDIA DALI, CPU",
        "dali",
        requires=_DALI,
        note="full decoding; keeps no decoded images on a CPU",
    ),
    "ffcv": Peer(
        "FFCV, raw file",
        "ffcv_raw",
        requires=("ffcv", TORCH, "numpy", "opencv-python-headless", "pillow", "setuptools"),
        needs="a C++ compiler, pkg-config, and the headers of OpenCV 4 and libturbojpeg",
        note="a converted file of decoded images; flip and translation only",
    ),
    "turboloader": Peer(
        "TurboLoader",
        "turbo",
        requires=("turboloader", "numpy"),
        note="from a tar, always decoded scaled, at M/8; cached: its .tbl of decoded images; "
        "augment: a random crop and a flip only, and from a tar it decodes the crop only; "
        "crop: its train_aug",
    ),
    "turboloader-transforms": Peer(
        "TurboLoader, its transforms",
        "turbo",
        variant="transforms",
        requires=("turboloader", "numpy"),
        note="from a tar, always decoded scaled, at M/8; RandomAffine and RandomHorizontalFlip "
        "with the same ranges, run one image after the other in the trainer",
    ),
    "torchvision": Peer(
        "torchvision v2, tensors",
        "torchvision_v2",
        group="torchvision v2",
        variant="tensors",
        requires=TORCHVISION,
        note="torchvision.io.decode_jpeg, then tensors of bytes",
    ),
    "torchvision-pil-decoder": Peer(
        "torchvision v2, tensors from PIL",
        "torchvision_v2",
        group="torchvision v2",
        variant="pil-decoder",
        requires=TORCHVISION,
        note="decoded by PIL, then tensors of bytes",
    ),
    "torchvision-pil": Peer(
        "torchvision v2, PIL images",
        "torchvision_v2",
        group="torchvision v2",
        variant="pil",
        requires=TORCHVISION,
        note="PIL images up to the normalisation",
    ),
    "albumentations": Peer(
        "Albumentations, OpenCV",
        "albumentations_cv2",
        requires=("albumentations==2.0.8", "opencv-python-headless", TORCH, "numpy"),
        note="in a PyTorch DataLoader; shrinks with INTER_AREA; it has no RandAugment: recipe has "
        "SomeOf(n=2) of the same operations at the same strengths",
    ),
    "dali-recipe": Peer(
        "NVIDIA DALI, CPU",
        "recipe_dali",
        requires=_DALI,
        shares="dali",
        note="decoders.image_random_crop decodes a part only; auto_aug.rand_augment",
    ),
    "tfdata-recipe": Peer(
        "tf.data, Keras's layers",
        "recipe_tfdata",
        group="tf.data, Keras's layers",
        requires=_TENSORFLOW,
        shares="tfdata",
        note="Keras has no RandomResizedCrop: sample_distorted_bounding_box and "
        "decode_and_crop_jpeg, a resize that does not antialias; its RandAugment draws one list of "
        "operations for a batch",
    ),
    "tfdata-recipe-antialias": Peer(
        "tf.data, Keras's layers, antialiased",
        "recipe_tfdata",
        group="tf.data, Keras's layers",
        variant="antialias",
        requires=_TENSORFLOW,
        shares="tfdata",
        note="the same with tf.image.resize(antialias=True)",
    ),
    "loaderd-fast": Peer("loaderd, precision='fast'", "ours", variant="fast"),
    "fit-loaderd": Peer("model.fit, loaderd", "fit", variant="loaderd"),
    "fit-arrays": Peer(
        "model.fit, PyDataset of arrays",
        "fit",
        group="model.fit, arrays in memory",
        variant="arrays",
        note="batches are views of one array as NumPy makes it, which TensorFlow copies",
    ),
    "fit-aligned": Peer(
        "model.fit, PyDataset of aligned arrays",
        "fit",
        group="model.fit, arrays in memory",
        variant="aligned",
        note="the same array at a multiple of 64 bytes, which TensorFlow takes as it is",
    ),
    "share-two": Peer("two trainers, one daemon", "share", variant="two"),
    "share-one": Peer("one trainer alone", "share", variant="one"),
}

_LOADERS = (
    "floor",
    "keras-threads",
    "keras-processes",
    "tfdata",
    "grain-threads",
    "grain-processes",
    "torch",
    "dali",
    "turboloader",
)
_RECIPES = (
    "floor",
    "torchvision",
    "torchvision-pil-decoder",
    "torchvision-pil",
    "albumentations",
    "dali-recipe",
    "tfdata-recipe",
    "tfdata-recipe-antialias",
)
_ANTIALIASED = (*_LOADERS[:4], "tfdata-antialias", *_LOADERS[4:])
_NO_CACHE = "keeps no decoded images"
_TOO_SLOW = "resizes so large images on JAX at about one a second, too slow for these turns"
_224 = {"size": (224, 224), "interpolation": "bilinear"}

WORKLOADS = {
    "plain": Workload("150x150, nearest, float32, batches of 32, rescale", _LOADERS),
    "plain-scaled": Workload(
        'plain, with decode="scaled", which keeps the size with nearest',
        ("turboloader",),
        {"scaled": True},
    ),
    "augment": Workload(
        "plain, and rotation 20, shifts 0.2, shear 0.2, zoom 0.2, horizontal flip",
        _LOADERS,
        {"augment": True},
    ),
    "augment-scaled": Workload(
        'augment, with decode="scaled"',
        ("turboloader-transforms", "turboloader"),
        {"augment": True, "scaled": True},
    ),
    "bilinear": Workload(
        "224x224, antialiased bilinear, float32, batches of 64, rescale",
        _ANTIALIASED,
        {**_224, "batch_size": 64},
    ),
    "photos": Workload(
        "photos of 12 megapixels to 224x224, bilinear, float32, batches of 8; "
        'decode="scaled", which keeps twice the size',
        (*_LOADERS[:4], "tfdata-antialias", "torch", "dali", "turboloader"),
        {**_224, "batch_size": 8, "scaled": True},
        photos="large",
        left_out={"grain-threads": _TOO_SLOW, "grain-processes": _TOO_SLOW},
    ),
    "cached": Workload(
        'augment, epochs after the first; cache="memory"',
        ("floor", "keras-threads", "keras-processes", "tfdata", "torch", "ffcv", "turboloader"),
        {"augment": True, "cached": True},
        photos="many",
        left_out={"grain-threads": _NO_CACHE, "grain-processes": _NO_CACHE, "dali": _NO_CACHE},
    ),
    "cached-fast": Workload(
        'cached, with precision="fast"',
        ("loaderd", "ffcv", "turboloader"),
        {"augment": True, "cached": True},
        ours="loaderd-fast",
        photos="many",
    ),
    "cached-plain": Workload(
        "plain, epochs after the first",
        ("floor", "tfdata", "torch", "ffcv", "turboloader"),
        {"cached": True},
        photos="many",
        left_out={"keras-threads": _NO_CACHE, "dali": _NO_CACHE},
    ),
    "cached-uint8": Workload(
        "150x150, uint8, no augmentation, batches of 32, epochs after the first",
        ("floor", "tfdata", "torch", "ffcv"),
        {"dtype": "uint8", "cached": True},
        photos="many",
        left_out={
            "keras-threads": _NO_CACHE,
            "grain-threads": _NO_CACHE,
            "grain-processes": _NO_CACHE,
            "dali": _NO_CACHE,
            "turboloader": "gives float32 and float16 only",
        },
    ),
    "crop": Workload(
        "224x224 of a random part of the picture, antialiased bilinear, horizontal flip, "
        "ImageNet's mean and standard deviation, float32, batches of 32",
        (*_RECIPES, "turboloader"),
        {**_224, "recipe": "crop"},
    ),
    "recipe": Workload(
        "crop, with RandAugment (2 operations, magnitude 9) before the normalisation",
        _RECIPES,
        {**_224, "recipe": "randaugment"},
        left_out={"turboloader": "has no RandAugment"},
    ),
    "fit": Workload(
        "model.fit with a model that costs nothing, cached float32 images, batches of 32",
        ("fit-arrays", "fit-aligned"),
        {"cached": True},
        ours="fit-loaderd",
    ),
    "fit-bytes": Workload(
        "the same with uint8 images, which a Rescaling layer divides in the step",
        ("fit-arrays", "fit-aligned"),
        {"cached": True, "dtype": "uint8"},
        ours="fit-loaderd",
    ),
    "shared-cache": Workload(
        "first epoch of augment with a cache: two trainers, images/s of both together",
        ("share-one",),
        {"augment": True, "cached": True},
        ours="share-two",
    ),
}

MUSTS = (
    Must("plain", "floor", 0.95),
    Must("plain-scaled", "turboloader", 1.0),
    Must("augment", "floor", 0.95),
    Must("bilinear", "floor", 0.95),
    Must("augment", "Keras ImageDataGenerator", 5.0),
    Must("augment", "tfdata", 2.5),
    Must("augment", "torch", 1.7),
    Must("augment", "dali", 1.9),
    Must("augment-scaled", "turboloader-transforms", 1.0),
    Must("augment-scaled", "turboloader", 1.0),
    Must("photos", "tfdata", 1.6),
    Must("photos", "Keras ImageDataGenerator", 6.0),
    Must("photos", "torch", 1.0),
    Must("cached", "Keras ImageDataGenerator", 20.0),
    Must("cached", "tfdata", 8.0),
    Must("cached", "floor", 0.9),
    Must("cached", "ffcv", 1.0),
    Must("cached-fast", "turboloader", 2.0),
    Must("cached-fast", "ffcv", 3.5),
    Must("cached-plain", "turboloader", 1.0),
    Must("cached-plain", "tfdata", 1.0),
    Must("cached-uint8", "ffcv", 1.0),
    Must("cached-uint8", "tfdata", 1.0),
    Must("crop", "floor", 0.95),
    Must("crop", "turboloader", 1.0),
    Must("recipe", "torchvision v2", 1.5),
    Must("recipe", "albumentations", 1.5),
    Must("recipe", "dali-recipe", 1.5),
    Must("recipe", "tf.data, Keras's layers", 5.0),
    Must("fit", "model.fit, arrays in memory", 0.7),
    Must("fit-bytes", "model.fit, arrays in memory", 0.9),
    Must("shared-cache", "share-one", 1.8),
)
FIRST_BATCH_S = 0.3
FIRST_BATCH_FILES = 3000
