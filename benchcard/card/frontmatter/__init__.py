"""The YAML front matter of a README: how it is written, parsed, merged and checked. Leaves the body to the layouts."""
