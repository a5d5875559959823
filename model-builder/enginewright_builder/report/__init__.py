"""report.json and report.html: what was built, and why it may be trusted."""
