"""From recipes, references and artefacts to live objects; the only room that knows every shelf."""
