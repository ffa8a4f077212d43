"""The execution as a database: tables derived from a recording, and questions to them."""
