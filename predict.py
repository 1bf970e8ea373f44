"""A checkpoint + images -> results/: result.csv (id_code,diagnosis), details.csv (scores, flags), report.html."""

from dr.commands.predict import run

if __name__ == "__main__":
    run()
