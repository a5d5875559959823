"""OpenVINO text generation: checkpoint → stateful IR by Optimum, weights packed, loaded by OpenVINO GenAI.

The graph keeps keys and values inside; the runtime replaces them by a paged cache for all requests. Weights alone are
quantised: generating reads every weight once a token, so their size is what the speed follows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Format, Quantization
from enginewright_api.weight_support import FEW_BITS
from enginewright_builder.toolchain.conversion import reason
from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.openvino_decoder import OpenVINODecoderWeights
from enginewright_builder.toolchain.openvino_names import canonical_names
from enginewright_builder.toolchain.scopes import excluded_nodes
from enginewright_builder.toolchain.weight_only import compress

if TYPE_CHECKING:
    import openvino

GRAPH = "openvino_model.xml"
WEIGHTS = "openvino_model.bin"
_CONFIGURATION = ("config.json", "generation_config.json")
_TOKENIZER, _DETOKENIZER = "openvino_tokenizer.xml", "openvino_detokenizer.xml"
_PROBE_TOKENS, _PROBE_DRAFTS = 8, 2


class OpenVINOGenerationBackend:
    """Engines for CPU nodes: a folder that openvino_genai.ContinuousBatchingPipeline loads."""

    graph = GRAPH
    entry = GRAPH
    package = "openvino-genai"

    def export(self, checkpoint: Path, description: EngineDescription, into: Path) -> None:
        """Stateful IR in float32, tokenizer and detokenizer as IR, configuration."""
        from optimum.exporters.openvino import export_from_model

        from enginewright_builder.compression.structure import load_model

        model = load_model(checkpoint, description.task)
        logging.getLogger("transformers").setLevel(logging.ERROR)
        try:
            export_from_model(model, output=into, task="text-generation-with-past", stateful=True, device="cpu")
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise DeterministicError(
                "UnsupportedOperator", f"Optimum cannot export the model: {reason(error)}"
            ) from error
        _export_tokenizer(checkpoint, into)
        wanted = {GRAPH, WEIGHTS, *_CONFIGURATION}
        for path in into.iterdir():
            # Tokenizer files in other layouts: the engine has its own in tokenizer/.
            if path.name not in wanted and not path.name.startswith(("openvino_tokenizer", "openvino_detokenizer")):
                path.unlink()

    def quantize(
        self,
        graph: Path,
        description: EngineDescription,
        quantization: Quantization,
        calibration: Sequence[Feed],
        into: Path,
    ) -> dict[str, object]:
        """Weights in 16 bits or fewer. Returns how many weights have which type, and what packing them told."""
        import openvino as ov

        _link_rest(graph, into)
        if quantization.format in FEW_BITS:
            told = compress(OpenVINODecoderWeights(graph / GRAPH), quantization, calibration, into / GRAPH)
            return told | {"weights": _weights_by_type(into / GRAPH)}
        model = ov.Core().read_model(graph / GRAPH)
        excluded: list[str] = []
        if quantization.format is Format.INT8:
            excluded = excluded_nodes(_modules(model), quantization.exclude)
            model = _in_eight_bits(model, excluded)
        halved = quantization.format in (Format.FP16, Format.BF16)
        ov.save_model(canonical_names(model), into / GRAPH, compress_to_fp16=halved)
        return {"excluded": excluded, "weights": _weights_by_type(into / GRAPH)}

    def compile(self, graph: Path, description: EngineDescription, into: Path) -> None:
        """The IR is what the runtime loads; it compiles for the CPU it finds when it loads."""
        for path in sorted(graph.iterdir()):
            (into / path.name).hardlink_to(path)

    def answers(
        self, engine: Path, description: EngineDescription, feeds: Iterable[Feed], threads: int
    ) -> Iterator[Any]:
        """Log-probabilities [1, tokens] of what the served pipeline generates greedily after each prompt.

        Raises DeterministicError when it generates nothing, or tokens that the vocabulary lacks.
        """
        import numpy as np
        import openvino as ov
        import openvino_genai as genai

        prompts = [feed["input_ids"] for feed in feeds]
        scheduling = genai.SchedulerConfig()
        scheduling.num_kv_blocks = 2 + (max(ids.shape[1] for ids in prompts) + _PROBE_TOKENS) // 16
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": description.precision_hint,
            "INFERENCE_NUM_THREADS": threads,
        }
        config = genai.GenerationConfig(max_new_tokens=_PROBE_TOKENS, logprobs=1, do_sample=False)
        generation = description.generation
        if generation is not None and generation.kv_cache_precision:
            settings["KV_CACHE_PRECISION"] = generation.kv_cache_precision
        if generation is not None and generation.draft_entry is not None:
            settings["draft_model"] = genai.draft_model(engine / PurePosixPath(generation.draft_entry).parent, "CPU")
            config.num_assistant_tokens = _PROBE_DRAFTS
            # As served: prompts are read whole beside a draft.
            scheduling.max_num_batched_tokens += description.limits.max_input_tokens
            scheduling.dynamic_split_fuse = False
        pipeline = genai.ContinuousBatchingPipeline(str(engine), scheduling, "CPU", settings)
        for number, prompt in enumerate(prompts):
            handle = pipeline.add_request(number, ov.Tensor(prompt), config)
            while pipeline.has_non_finished_requests():
                pipeline.step()
            (answer,) = handle.read_all()
            ids = list(answer.generated_ids)
            if not ids or max(ids) >= description.output_dimension:
                raise DeterministicError("WrongOutput", f"the compiled engine generates tokens {ids} on real text")
            yield np.array([answer.generated_log_probs], dtype=np.float32)


def _export_tokenizer(checkpoint: Path, into: Path) -> None:
    import openvino as ov
    import openvino_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    try:
        there, back = openvino_tokenizers.convert_tokenizer(tokenizer, with_detokenizer=True)
    except (RuntimeError, ValueError, NotImplementedError, AttributeError) as error:
        first = str(error).strip().splitlines()[0]
        raise DeterministicError(
            "UnsupportedOperator", f"tokenizer.json: OpenVINO cannot convert it: {first}"
        ) from error
    ov.save_model(canonical_names(there), into / _TOKENIZER)
    ov.save_model(canonical_names(back), into / _DETOKENIZER)


def _in_eight_bits(model: openvino.Model, excluded: list[str]) -> openvino.Model:
    """Asymmetric, one scale and zero point a channel; the runtime may then quantise activations as they come."""
    import nncf

    ignored = nncf.IgnoredScope(names=excluded) if excluded else None
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=ignored)


def _modules(model: openvino.Model) -> dict[str, str]:
    """Friendly names look like `__module.model.layers.0.mlp.up_proj/ov_ext::linear/MatMul`."""
    found = {}
    for node in model.get_ordered_ops():
        scope, _, rest = node.get_friendly_name().partition("/")
        if rest and node.get_type_name() in ("MatMul", "Gather") and scope.startswith("__module."):
            found[node.get_friendly_name()] = scope.removeprefix("__module.").removeprefix("model.")
    return found


def _weights_by_type(graph: Path) -> dict[str, int]:
    """Numbers in constants of each type, read back from what was written."""
    import numpy as np
    import openvino as ov

    found: dict[str, int] = {}
    for node in ov.Core().read_model(graph).get_ops():
        if node.get_type_name() == "Constant":
            kind = node.get_element_type().get_type_name()
            found[kind] = found.get(kind, 0) + int(np.prod(node.get_output_shape(0)))
    return dict(sorted(found.items()))


def _link_rest(graph: Path, into: Path) -> None:
    for path in sorted(graph.iterdir()):
        if path.name not in (GRAPH, WEIGHTS):
            (into / path.name).hardlink_to(path)
