"""How the API server treats objects, without a server: shared by the Fake and the Local adapter."""
