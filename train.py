"""Preprocessed images + a recipe -> weights/NAME__best.pt, with thresholds and metrics."""

from dr.commands.train import run

if __name__ == "__main__":
    run()
