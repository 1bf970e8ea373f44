"""How fast each stage is, against the published method and against the limit of the machine: `make bench`."""
