"""`python -m dr`: the command `dr`."""

from dr.commands.dr import run

if __name__ == "__main__":
    run()
