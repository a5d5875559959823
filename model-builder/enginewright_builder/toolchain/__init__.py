"""Heavy work in a process of its own: torch, OpenVINO, ONNX Runtime and NNCF are imported only here."""
