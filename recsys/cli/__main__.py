"""`python -m recsys.cli`."""

from recsys.cli.common import run_app

if __name__ == "__main__":
    run_app()
