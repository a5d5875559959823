"""A checkpoint whose shapes config.json cannot say: which linears have other shapes or are two thin factors.

Compressed checkpoints stay in the Hugging Face layout. Whatever config.json can express (number of layers, one
feed-forward width, one number of heads with `head_dim`) is said there, so that other tools load the checkpoint too;
only the rest goes to structure.json, which is found by comparing the model with what its config alone would build.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from enginewright_api.errors import DeterministicError, first_problem
from enginewright_api.identity import canonical_json
from enginewright_api.model_base import ApiModel
from enginewright_api.recipe import Task
from enginewright_builder.sources.checkpoint import CONFIG, INDEX, WEIGHTS, kept

if TYPE_CHECKING:
    import torch
    import transformers

STRUCTURE = "structure.json"
_SIZES = (
    "num_hidden_layers", "intermediate_size", "hidden_dim", "num_attention_heads", "num_key_value_heads",
    "layer_types",
)  # fmt: skip
"""Fields of config.json that a compressed model may change."""


class LinearShape(ApiModel):
    """One linear module that differs from what config.json says."""

    in_features: Annotated[int, Field(ge=1)]
    out_features: Annotated[int, Field(ge=1)]
    rank: Annotated[int, Field(ge=1)] | None = None


class Structure(ApiModel):
    """structure.json. Attention head counts follow from the shapes of the query and key linears."""

    linears: dict[str, LinearShape] = Field(default_factory=dict)


def read_structure(checkpoint: Path) -> Structure:
    """Of a checkpoint folder; empty without the file. Raises DeterministicError InvalidCheckpoint."""
    file = checkpoint / STRUCTURE
    if not file.is_file():
        return Structure()
    try:
        structure = Structure.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise _invalid(first_problem(error)) from error
    for name, shape in structure.linears.items():
        most = min(shape.in_features, shape.out_features)
        if shape.rank is not None and shape.rank > most:
            raise _invalid(f"linears.{name}.rank: {shape.rank} is more than {most}, the smaller of the two dimensions")
    return structure


def load_model(checkpoint: Path, task: Task, *, dtype: str = "float32") -> transformers.PreTrainedModel:
    """The checkpoint in evaluation mode, its structure applied; every tensor but poolers' must be there.

    Raises DeterministicError UnsupportedArchitecture when transformers does not know it, InvalidCheckpoint when
    tensors are missing or of another shape, or structure.json does not fit.
    """
    import torch

    architecture = json.loads((checkpoint / CONFIG).read_text())["architectures"][0]
    plain = _model_class(checkpoint, architecture, task)
    structure = read_structure(checkpoint)

    def build(self: Any, config: Any, *inputs: Any, **options: Any) -> None:
        plain.__init__(self, config, *inputs, **options)
        apply_structure(self, structure)

    shaped: Any = type(plain.__name__, (plain,), {"__init__": build, "__module__": plain.__module__})
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for a pooler that the checkpoint lacks
            model, info = shaped.from_pretrained(
                checkpoint,
                dtype=getattr(torch, dtype),
                attn_implementation="sdpa" if plain._supports_sdpa else "eager",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise DeterministicError("InvalidCheckpoint", f"{architecture} cannot be loaded: {first}") from error
    missing = sorted(name for name in info["missing_keys"] if "pooler." not in name)
    if missing:
        raise DeterministicError(
            "InvalidCheckpoint",
            f"the safetensors lack {len(missing)} tensors of {architecture}, first {missing[0]}",
        )
    model.__class__ = plain  # the subclass only served to build the right shapes
    return model.eval()


def apply_structure(model: torch.nn.Module, structure: Structure) -> None:
    """Replace linears by ones of the wanted shapes, not initialised. Raises DeterministicError InvalidCheckpoint."""
    from torch import nn

    from enginewright_builder.compression.anatomy import find_layers, set_heads, shape_of, thin_factors

    modules = dict(model.named_modules())
    for name, shape in sorted(structure.linears.items()):
        old = modules.get(name)
        if not isinstance(old, nn.Linear):
            raise _invalid(f"linears.{name}: {type(model).__name__} has no linear module of this name")
        bias = old.bias is not None
        if shape.rank is None:
            new: nn.Module = nn.Linear(shape.in_features, shape.out_features, bias=bias)
        else:
            new = thin_factors(shape.in_features, shape.rank, shape.out_features, bias=bias)
        model.set_submodule(name, new)
    if not structure.linears:
        return
    for layer in find_layers(model):
        set_heads(model, layer)
        _, attended = shape_of(model.get_submodule(layer.name(layer.layout.query)))
        _, values = shape_of(model.get_submodule(layer.name(layer.layout.value)))
        _, keys = shape_of(model.get_submodule(layer.name(layer.layout.key)))
        _, wide = shape_of(model.get_submodule(layer.name(layer.layout.expand[-1])))
        for part, given, wanted in (
            (layer.layout.output, shape_of(model.get_submodule(layer.name(layer.layout.output)))[0], attended),
            (layer.layout.value, values, keys),
            (layer.layout.contract, shape_of(model.get_submodule(layer.name(layer.layout.contract)))[0], wide),
        ):
            if given != wanted:
                raise _invalid(f"linears.{layer.name(part)}: has {given} features where {wanted} are needed")


def structure_of(model: transformers.PreTrainedModel, config: Any) -> Structure:
    """How the model differs from what this config alone builds."""
    import torch
    from torch import nn

    with torch.device("meta"):
        plain = type(model)(config)
    linears: dict[str, LinearShape] = {}
    for name, wanted in plain.named_modules():
        if not isinstance(wanted, nn.Linear):
            continue
        found = model.get_submodule(name)
        if isinstance(found, nn.Sequential):
            first, last = found[0], found[-1]
            linears[name] = LinearShape(
                in_features=first.in_features, out_features=last.out_features, rank=first.out_features
            )
        elif (found.in_features, found.out_features) != (wanted.in_features, wanted.out_features):
            linears[name] = LinearShape(in_features=found.in_features, out_features=found.out_features)
    return Structure(linears=linears)


def save_model(model: transformers.PreTrainedModel, source: Path, into: Path) -> None:
    """Weights, config.json, structure.json if needed, and every other file of the source checkpoint.

    Weights keep the source's number format. The bytes follow from the weights alone: names are sorted, nothing is
    dated. `source`'s config.json is edited rather than written anew, because releases of transformers spell fields
    (`rope_theta`, `dtype`) in ways that others read wrongly.
    """
    import torch
    from safetensors.torch import save_file

    into.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_file() and kept(name) and path.suffix != ".safetensors" and name not in (CONFIG, INDEX, STRUCTURE):
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, into / name)
    raw = _edited(json.loads((source / CONFIG).read_text()), model)
    (into / CONFIG).write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n")
    structure = structure_of(model, type(model.config).from_dict(raw))
    if structure.linears:
        (into / STRUCTURE).write_bytes(canonical_json(structure.wire()))
    dtype = getattr(torch, str(raw.get("dtype") or raw.get("torch_dtype") or "float32"))
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in _untied(model).items()
    }
    save_file(tensors, into / WEIGHTS, metadata={"format": "pt"})


def _model_class(checkpoint: Path, architecture: str, task: Task) -> Any:
    import transformers

    # Looked up by name: AutoModel would import every model's configuration first.
    found = getattr(transformers, architecture, None)
    if found is None:
        raise DeterministicError(
            "UnsupportedArchitecture",
            f"config.json: architecture {architecture} is unknown to transformers {transformers.__version__};"
            " custom code in a repository is never run",
        )
    if task is not Task.EMBEDDING:
        return found
    config = transformers.AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    return transformers.MODEL_MAPPING[type(config)]


def _edited(raw: dict[str, Any], model: transformers.PreTrainedModel) -> dict[str, Any]:
    config = model.config
    before = type(config).from_dict(raw)
    names = dict(getattr(config, "attribute_map", {}))
    changed = [name for name in _SIZES if getattr(config, name, None) != getattr(before, name, None)]
    edits = {names.get(name, name): getattr(config, name) for name in changed}
    if "num_attention_heads" in changed:
        edits["head_dim"] = config.head_dim  # otherwise derived from the number of heads
    return raw | edits | {"architectures": [type(model).__name__]}


def _untied(model: transformers.PreTrainedModel) -> dict[str, torch.Tensor]:
    """State without the second name of tensors that the model ties, as safetensors wants it."""
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    kept_names: dict[tuple[int, tuple[int, ...]], str] = {}
    state = model.state_dict()
    for name in sorted(state, key=lambda name: (name in tied, name)):
        kept_names.setdefault((state[name].data_ptr(), tuple(state[name].shape)), name)
    return {name: state[name] for name in sorted(kept_names.values())}


def _invalid(what: str) -> DeterministicError:
    return DeterministicError("InvalidCheckpoint", f"{STRUCTURE}: {what}")
