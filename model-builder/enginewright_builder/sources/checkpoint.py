"""A folder in the Hugging Face layout: what is in it, and whether it can be built from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginewright_api.engine_description import Pooling
from enginewright_api.errors import DeterministicError
from enginewright_builder.positions import positions_of
from enginewright_builder.sources.safetensors_file import kind_of, read_header

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json",
    "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
GGUF_SUFFIX = ".gguf"
_KEPT_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja", GGUF_SUFFIX)
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".pickle")
_FLOAT32_BYTES = 4
_MOST_LABELS = 1_000_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checked folder holds."""

    folder: Path
    config: dict[str, Any]
    weights: tuple[str, ...]
    parameters: int

    @property
    def architecture(self) -> str:
        """First of config.json's architectures."""
        return str(self.config["architectures"][0])

    @property
    def float32_bytes(self) -> int:
        """Size of the weights once loaded."""
        return self.parameters * _FLOAT32_BYTES

    @property
    def max_input_tokens(self) -> int | None:
        """Longest input the positions allow; None when the model has no such limit."""
        return positions_of(self.config)

    def pooling(self) -> tuple[Pooling, bool]:
        """How token states become a vector, and whether it is normalised, from the sentence-transformers files.

        A plain checkpoint (no modules.json) is pooled by the mean and normalised.
        """
        modules = self._modules()
        kinds = [kind for kind, _ in modules]
        unknown = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
        if unknown:
            raise DeterministicError(
                "FeatureNotAvailable",
                f"modules.json: module {unknown[0]!r} after the transformer is not available yet",
            )
        if "Pooling" not in kinds:
            return Pooling.MEAN, not kinds or "Normalize" in kinds
        path = next(path for kind, path in modules if kind == "Pooling")
        settings = _object(self.folder / path / CONFIG, f"{path}/{CONFIG}")
        wanted = sorted(name for name, value in settings.items() if name.startswith("pooling_mode") and value is True)
        known = {"pooling_mode_mean_tokens": Pooling.MEAN, "pooling_mode_cls_token": Pooling.CLS}
        if len(wanted) != 1 or wanted[0] not in known:
            raise DeterministicError(
                "FeatureNotAvailable",
                f"{path}/config.json: pooling {', '.join(wanted) or 'none'} is not available yet; mean and cls are",
            )
        return known[wanted[0]], "Normalize" in kinds

    def labels(self) -> list[str]:
        """Class names in order, for classification."""
        names = self.config.get("id2label") or {}
        if not isinstance(names, dict) or not all(str(key).isdecimal() and len(str(key)) < 10 for key in names):
            raise _invalid(f"{CONFIG}: id2label is no mapping of class numbers to names")
        if names:
            return [str(names[key]) for key in sorted(names, key=int)]
        count = self.config.get("num_labels", 2)
        if type(count) is not int or not 1 <= count <= _MOST_LABELS:
            raise _invalid(f"{CONFIG}: num_labels is {count!r}"[:120] + f"; it must be between 1 and {_MOST_LABELS}")
        return [f"LABEL_{index}" for index in range(count)]

    def _modules(self) -> list[tuple[str, str]]:
        """Kind and folder of each module that sentence-transformers lists."""
        path = self.folder / "modules.json"
        listed = read_json(path, name="modules.json") if path.is_file() else []
        if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed):
            raise _invalid("modules.json: is not a list of modules")
        modules = [(str(module.get("type", "")).rpartition(".")[2], str(module.get("path", ""))) for module in listed]
        astray = next((path for _, path in modules if _leads_out(path)), None)
        if astray is not None:
            raise DeterministicError("UnsafePath", f"modules.json: path {astray[:80]!r} leads out of the folder")
        return modules


def _leads_out(path: str) -> bool:
    return path.startswith("/") or "\0" in path or "\\" in path or ".." in path.split("/")


def kept(relative: str) -> bool:
    """Whether a file of a source may be copied: weights, configuration, tokenizer. Code and documents are not."""
    name = relative.rpartition("/")[2]
    hidden = any(part.startswith(".") for part in relative.split("/"))
    return not hidden and relative.count("/") <= 1 and name.endswith(_KEPT_SUFFIXES)


def chosen(names: list[str]) -> list[str]:
    """The files of a source that are copied: a GGUF file only where there are no safetensors."""
    plain = any(name.endswith(".safetensors") for name in names)
    return [name for name in names if kept(name) and not (plain and name.endswith(GGUF_SUFFIX))]


def check_source_names(names: list[str], *, where: str) -> None:
    """Refuse by name what is never copied, so that its absence is explained."""
    if any(name.endswith(".safetensors") for name in names):
        return
    packed = sorted(name for name in names if name.endswith(GGUF_SUFFIX))
    if len(packed) == 1:
        return
    if packed:
        raise DeterministicError(
            "InvalidCheckpoint",
            f"{where}: holds {len(packed)} GGUF files ({packed[0]}, {packed[1]}, ...); give a folder with one of them",
        )
    pickled = sorted(name for name in names if name.endswith(_PICKLED))
    if pickled:
        raise DeterministicError(
            "UnsafeWeights",
            f"{where}/{pickled[0]}: weights in pickle files could run code and are refused; save them as safetensors",
        )
    raise DeterministicError("InvalidCheckpoint", f"{where}: holds no safetensors weights ({WEIGHTS} is missing)")


def inspect(folder: Path) -> Checkpoint:
    """Check everything that can be checked without loading. Raises DeterministicError with the file's name."""
    for path in sorted(folder.rglob("*")):
        kind = kind_of(path) if path.is_file() else None
        name = path.relative_to(folder).as_posix()
        if kind == "pickle":
            raise DeterministicError(
                "UnsafeWeights", f"{name}: its content is a pickle, which could run code; save weights as safetensors"
            )
        if kind == "archive":
            raise DeterministicError("ArchiveNotAccepted", f"{name}: is an archive; give the unpacked folder")
    config = read_config(folder)
    if not (folder / TOKENIZER).is_file():
        raise DeterministicError(
            "InvalidCheckpoint", f"{TOKENIZER} is missing; save the tokenizer beside the model (save_pretrained)"
        )
    if not isinstance(_object(folder / TOKENIZER, TOKENIZER).get("model"), dict):
        raise DeterministicError("InvalidCheckpoint", f"{TOKENIZER}: has no field `model`; it is not a tokenizer")
    weights = _weights(folder)
    parameters = 0
    listed = _listed(folder)
    for name in weights:
        path = folder / name
        if not path.is_file():
            raise DeterministicError("InvalidCheckpoint", f"{name}: this shard is missing; {INDEX} lists it")
        header = read_header(path, name=name)
        absent = sorted(listed.get(name, set()) - set(header.shapes))
        if absent:
            raise DeterministicError(
                "InvalidCheckpoint", f"{name}: lacks {absent[0]}, which {INDEX} says it holds; download it again"
            )
        parameters += header.parameters
    return Checkpoint(folder, config, tuple(weights), parameters)


def read_json(path: Path, *, name: str) -> Any:
    """Parsed file. Raises DeterministicError naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise _invalid(f"{name}: is not readable JSON ({error})") from error


def _object(path: Path, name: str) -> dict[str, Any]:
    """A file that is a JSON object. Raises DeterministicError naming it."""
    found = read_json(path, name=name)
    if not isinstance(found, dict):
        raise _invalid(f"{name}: is not a JSON object")
    return found


def _invalid(what: str) -> DeterministicError:
    return DeterministicError("InvalidCheckpoint", what)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, checked. Raises DeterministicError InvalidCheckpoint."""
    if not (folder / CONFIG).is_file():
        raise DeterministicError("InvalidCheckpoint", f"{CONFIG} is missing; the folder is no Hugging Face checkpoint")
    config = read_json(folder / CONFIG, name=CONFIG)
    architectures = config.get("architectures") if isinstance(config, dict) else None
    if not (isinstance(architectures, list) and architectures and isinstance(architectures[0], str)):
        raise DeterministicError(
            "InvalidCheckpoint", f'{CONFIG}: has no `architectures`; add the model class, such as ["BertModel"]'
        )
    return dict(config)


def _weights(folder: Path) -> list[str]:
    if (folder / INDEX).is_file():
        return sorted(_listed(folder))
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    raise DeterministicError("InvalidCheckpoint", f"{WEIGHTS} is missing; weights in other formats are not accepted")


def _listed(folder: Path) -> dict[str, set[str]]:
    """Shard → tensors, from the index."""
    if not (folder / INDEX).is_file():
        return {}
    mapping = _object(folder / INDEX, INDEX).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise DeterministicError("InvalidCheckpoint", f"{INDEX}: has no weight_map")
    shards: dict[str, set[str]] = {}
    for tensor, shard in mapping.items():
        if "/" in str(shard) or "\0" in str(shard) or not str(shard).endswith(".safetensors"):
            raise DeterministicError("InvalidCheckpoint", f"{INDEX}: {shard!r} is no safetensors file of this folder")
        shards.setdefault(str(shard), set()).add(str(tensor))
    return shards
