"""Labelled fundus images -> data/kaggle_retina: cropped, split and balanced."""

from dr.commands.data import run

if __name__ == "__main__":
    run()
