"""TensorRT-LLM up to the call: checkpoints, command lines, LLM arguments and Triton repositories.

Everything but `quantize` is pure and imports no toolchain. Two flavours: `PyTorch` serves a quantised Hugging Face
checkpoint through the LLM API, `Engine` compiles a TensorRT-LLM checkpoint with `trtllm-build` (1.2.1 at most).
"""
