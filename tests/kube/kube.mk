# Included by the top Makefile.
.PHONY: cluster cluster-down system-deps

cluster: ## Boot a real Kubernetes on this machine (as root: with a node) and say how to use it
	@kubeconfig=$$(tests/kube/up.sh) && printf '\n%s\n' \
	  "export KUBECONFIG=$$kubeconfig" \
	  "alias kubectl='$$(dirname $$kubeconfig)/bin/kubebox kubectl' helm=$$(dirname $$kubeconfig)/bin/helm" \
	  "kubectl get nodes" \
	  "ENGINEWRIGHT_TEST_KUBECONFIG is not needed: tests join this cluster and leave it running. End it: make cluster-down"

cluster-down: ## Take the cluster down and remove every trace of it
	@tests/kube/down.sh

system-deps: ## Install the Debian or Ubuntu packages that the tests need (asks for root by sudo)
	@tests/kube/system-deps.sh
