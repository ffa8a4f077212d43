"""Read text off a picture of the guest's screen."""

from __future__ import annotations

import shlex
import subprocess


def tesseract_ocr(image_path: str, tesseract_args: str = "") -> list[str]:
    """Return the lines of text that the program tesseract finds in a picture."""
    done = subprocess.run(
        ["tesseract", image_path, "stdout", *shlex.split(tesseract_args)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")
