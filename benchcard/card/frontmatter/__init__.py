"""The YAML front matter of a README: its fields, and how it is read, merged and checked."""
