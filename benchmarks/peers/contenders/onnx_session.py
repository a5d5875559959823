"""ONNX Runtime as it comes, for those who end in a .onnx file."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def session(model: Path, threads: int) -> Any:
    """ONNX Runtime with its defaults and so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    opened = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = {one.name for one in opened.get_inputs()}
    output = [opened.get_outputs()[0].name]

    def run(ids: Any, mask: Any) -> Any:
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        return opened.run(output, {name: value for name, value in feed.items() if name in names})[0]

    return run
