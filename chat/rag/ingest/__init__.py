"""Import of transcript and note files: one parser per family of formats, and the importer."""
