"""What a TensorRT recipe would run, before anything of it is there."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from enginewright_api.nvidia import tensorrt_image
from enginewright_api.recipe import Recipe
from enginewright_builder.tensorrt.profiles import Profile, profiles, trtexec_command

_BERT_INPUTS = ("input_ids", "attention_mask")


@dataclass(frozen=True, slots=True)
class EncoderPlan:
    """Image, profiles, and the build as a command line (argv)."""

    image: str
    profiles: tuple[Profile, ...]
    command: tuple[str, ...]

    def lines(self) -> list[str]:
        """The command as a shell would take it."""
        return [shlex.join(self.command)]


def encoder_plan_of(recipe: Recipe) -> EncoderPlan:
    """The plan of a resolved recipe with backend TensorRT; inputs as a BERT without segments has them."""
    wanted = profiles(recipe.limits)
    command = trtexec_command(
        onnx="model.onnx", plan="model.plan", timing_cache="timing.cache", inputs=_BERT_INPUTS, wanted=wanted
    )
    return EncoderPlan(tensorrt_image(), tuple(wanted), tuple(command))
