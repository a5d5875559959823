# Included by the top Makefile.
.PHONY: cluster cluster-down system-deps

cluster: ## Boot a real Kubernetes on this machine (as root: with a node) and print how to use it
	@kubeconfig=$$(tests/kube/up.sh) && printf '%s\n' "" \
	  "export KUBECONFIG=$$kubeconfig PATH=$${kubeconfig%/*}/bin:\$$PATH" \
	  "kubectl get nodes" "" \
	  "Tests join this cluster and leave it running. End it with: make cluster-down"

cluster-down: ## Take the cluster down and remove every trace of it
	@tests/kube/down.sh

system-deps: ## Install the Debian or Ubuntu packages that the tests need (asks for root by sudo)
	@tests/kube/system-deps.sh
