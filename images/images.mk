# Included by the top Makefile.
.PHONY: images e2e chart

images: ## Build the container images on this machine (needs root and buildah) and print their sizes
	@images/build.sh

chart: ## Copy the CRDs into the Helm chart
	@cp crds/*.enginewright.io.yaml helm/enginewright/files/crds/

e2e: $(STAMP) ## Images, Helm, a real node: from model.yaml to answers on a real Kubernetes
	@$(VENV)/bin/pytest tests/e2e -q -s
