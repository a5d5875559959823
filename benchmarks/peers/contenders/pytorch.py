"""PyTorch in float32: eager, and compiled with torch.compile's defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Any:
    """`eager` or `compile`."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    if variant == "compile":
        model = torch.compile(model)

    def run(ids: Any, mask: Any) -> Any:
        with torch.inference_mode():
            answer = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return answer.last_hidden_state.numpy()

    return run
