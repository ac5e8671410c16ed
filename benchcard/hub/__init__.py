"""The Hub: read a repository, and make one commit or none."""
