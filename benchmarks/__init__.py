"""The speed of each stage, compared with the published method and with the limit of the machine: `make bench`."""
