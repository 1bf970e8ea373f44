"""The prepared photographs + a recipe -> weights/NAME__best.pt, the cuts between grades and how good they are."""

from dr.commands.train import run

if __name__ == "__main__":
    run()
