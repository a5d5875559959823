"""One file a stage, in the order they run: fetch, baseline, export, quantize, compile, verify, benchmark, package,
publish.

Export comes before quantize: the backends quantise the exported graph after training (NNCF on OpenVINO IR, ONNX
Runtime on ONNX), so that calibration sees exactly the operations that will run. What changes weights in torch (distil,
prune, factorize) belongs between baseline and export.
"""
