# Included by the top Makefile.
.PHONY: images e2e chart
SBOMS ?= dist/sbom

images: $(STAMP) ## Build the container images here (needs root and buildah), print their sizes, list their contents (SBOM)
	@images/build.sh
	@images/sizes.sh
	@images/sbom.sh $(SBOMS) $(CURDIR)/$(PY)

chart: ## Copy the CRDs into the Helm chart
	@cp crds/*.enginewright.io.yaml helm/enginewright/files/crds/

e2e: $(STAMP) ## Images, Helm, a real node: from model.yaml to answers on a real Kubernetes
	@$(VENV)/bin/pytest tests/e2e -q -s
