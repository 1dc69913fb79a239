"""Model families, one file each; `registry.FAMILIES` lists them."""
