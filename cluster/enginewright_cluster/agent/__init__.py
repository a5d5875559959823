"""The local node agent: Deployments, Jobs, Services and Pods of a LocalCluster as processes of this machine."""
