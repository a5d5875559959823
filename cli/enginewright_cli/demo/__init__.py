"""`enginewright demo`: from a model.yaml to answers, told as it happens."""
