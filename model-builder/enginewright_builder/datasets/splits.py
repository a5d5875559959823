"""Which files of a data-set folder in the Hugging Face layout belong to which split.

The rules are the hub's (its documentation, "File names and splits" and "Manual configuration"): what the README's
`configs` say; else a split's name, or a usual synonym of it, in a file's or folder's name; else all is `train`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import yaml

from enginewright_builder.datasets.rows import SUFFIXES, invalid

CARD = "README.md"
_SYNONYMS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_NO_DATA = ("readme.txt", "license.txt", "requirements.txt", "notice.txt")
_SAVED_TO_DISK = ("dataset_dict.json", "state.json")
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)


def split_files(names: Sequence[str], split: str, *, card: str = "", name: str) -> list[str]:
    """Files of a split, in order. `split` is a split's name, or `<configuration>/<split>` where there are several.

    `names` are the folder's files, `card` its README.md, `name` what messages call the set. Raises DeterministicError
    InvalidDataset that lists what there is.
    """
    configuration, _, wanted = split.rpartition("/")
    found = _by_split(names, configuration, card, name)
    if wanted not in found:
        there = ", ".join(sorted(found)) or "none"
        raise invalid(name, f"has no split {split!r}; it has {there}")
    return found[wanted]


def preferred_split(names: Sequence[str], preferred: Sequence[str], *, card: str = "", name: str) -> list[str]:
    """Files of the first of the preferred splits that is there; raises as `split_files`."""
    found = _by_split(names, "", card, name)
    for split in preferred:
        if split in found:
            return found[split]
    raise invalid(name, f"has none of the splits {', '.join(preferred)}; it has {', '.join(sorted(found)) or 'none'}")


def _by_split(names: Sequence[str], configuration: str, card: str, name: str) -> dict[str, list[str]]:
    data = _data_files(names, name)
    configured = _configured(card, name)
    if configured:
        return _from_card(data, configured, configuration, name)
    if configuration:
        data = [path for path in data if configuration in path.split("/")[:-1]]
    folders = sorted({found for path in data for found in [_configuration_of(path)] if found})
    if not configuration and len(folders) > 1:
        raise invalid(name, f"holds several configurations ({', '.join(folders)[:200]}); write <configuration>/<split>")
    found: dict[str, list[str]] = {}
    for path in data:
        found.setdefault(_split_of(path) or "", []).append(path)
    if set(found) == {""}:
        return {"train": found[""]}
    found.pop("", None)
    return found


def _data_files(names: Sequence[str], name: str) -> list[str]:
    """Files of the kind that the folder mostly holds; kinds are not mixed."""
    visible = [path for path in sorted(names) if not any(part.startswith(".") for part in path.split("/"))]
    data = [path for path in visible if path.endswith(SUFFIXES) and path.rpartition("/")[2].lower() not in _NO_DATA]
    for suffix in SUFFIXES:
        found = [path for path in data if path.endswith(suffix)]
        if found:
            return found
    if any(path.rpartition("/")[2] in _SAVED_TO_DISK for path in visible):
        raise invalid(name, "was written by save_to_disk, which is not read; write its splits with to_parquet")
    raise invalid(name, f"holds no files that end in {', '.join(SUFFIXES)}")


def _split_of(path: str) -> str | None:
    """From the file's name, else from its folders, the nearest first."""
    for part in reversed(path.split("/")):
        words = re.split(r"[^0-9a-z]+", part.lower())
        for split, synonyms in _SYNONYMS.items():
            if any(word in synonyms for word in words):
                return split
        numbered = re.fullmatch(r"([\w.]+?)-\d{5}-of-\d{5}\.\w+", part)
        if numbered is not None:
            return numbered[1]
    return None


def _configuration_of(path: str) -> str:
    """The folder that is neither `data` nor a split's."""
    return next((part for part in path.split("/")[:-1] if part != "data" and _split_of(part) is None), "")


def _configured(card: str, name: str) -> list[dict[str, Any]]:
    front = _FRONT_MATTER.match(card.replace("\r\n", "\n"))
    if front is None:
        return []
    try:
        described = yaml.safe_load(front[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise invalid(name, f"{CARD}: its front matter is not YAML ({str(error).splitlines()[0][:120]})") from error
    configs = described.get("configs") if isinstance(described, dict) else None
    if not isinstance(configs, list):
        return []
    return [config for config in configs if isinstance(config, dict) and config.get("data_files")]


def _from_card(
    data: Sequence[str], configs: list[dict[str, Any]], configuration: str, name: str
) -> dict[str, list[str]]:
    by_name = {str(config.get("config_name", "default")): config for config in configs}
    chosen = by_name.get(configuration) if configuration else _default(configs, by_name)
    if chosen is None:
        listed = ", ".join(sorted(by_name))[:200]
        raise invalid(name, f"{CARD}: choose a configuration, write <configuration>/<split>; there are {listed}")
    files = chosen["data_files"]
    if not isinstance(files, list) or not all(isinstance(entry, dict) for entry in files):
        files = [{"split": "train", "path": files}]
    found: dict[str, list[str]] = {}
    for entry in files:
        paths = entry.get("path")
        patterns = [str(path) for path in (paths if isinstance(paths, list) else [paths])]
        matching = [path for path in data if any(fnmatchcase(path, pattern) for pattern in patterns)]
        if matching:
            found[str(entry.get("split", "train"))] = matching
    return found


def _default(configs: list[dict[str, Any]], by_name: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    marked = [config for config in configs if config.get("default") is True]
    if marked or len(configs) == 1:
        return (marked or configs)[0]
    return by_name.get("default")
