"""Code that runs inside tritonserver's Python backend."""
