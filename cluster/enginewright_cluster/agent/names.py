"""Labels, annotations and names that the agent uses."""

from __future__ import annotations

NODE_NAME = "local"
NODE_ADDRESS = "127.0.0.1"
FINALIZER = "enginewright.io/node-agent"
"""On every pod that the agent makes: the object stays until its processes are gone."""
LOCAL_PORTS = "enginewright.io/local-ports"
"""On a Service: `{"http": 8080}`, the ports its one pod must get. On a Pod: the ports it got, by name."""
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
COMPONENT = "enginewright-node-agent"
TEMPLATE_HASH = "pod-template-hash"
JOB_NAME = "batch.kubernetes.io/job-name"
