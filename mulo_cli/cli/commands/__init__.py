"""One verb per file; engines are imported inside the functions, so that help is quick."""
