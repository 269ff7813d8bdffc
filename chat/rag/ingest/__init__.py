"""Files of transcripts and notes -> memories: one module per family of formats, and the run over many files."""
