"""The golden record: the programs for a GPU as text, so that a rebuilt backend can be shown to make the same ones."""
