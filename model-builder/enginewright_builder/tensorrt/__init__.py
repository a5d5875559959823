"""TensorRT for encoders: optimisation profiles, the build, and the Triton model around the plan.

The graph says its own precision (16-bit weights, or quantise and dequantise pairs by ModelOpt), and the network is
built strongly typed: nothing is left to precision flags. `build` imports TensorRT late.
"""
