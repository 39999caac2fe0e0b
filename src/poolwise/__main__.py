"""`python -m poolwise`."""

from poolwise.cli import app

if __name__ == "__main__":
    app(prog_name="poolwise")
