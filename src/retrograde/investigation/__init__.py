"""One opened recording, as every front end holds it."""
