"""Engines behind the real server, and questions to them."""
